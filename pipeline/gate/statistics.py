"""Paired comparisons over users, and several of them at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np


@dataclass(frozen=True)
class Paired:
    """Challenger against champion on the same users.

    Attributes:
        challenger: Mean.
        champion: Mean.
        difference: Of the means.
        low: Lower end of the 95 % interval of the difference.
        high: Upper end.
        relative_low: Lower end of the interval of ``difference / champion``; -inf where the champion has 0.
        relative_high: Upper end.
        standard_error: Of the difference.
        users: How many.
    """

    challenger: float
    champion: float
    difference: float
    low: float
    high: float
    relative_low: float
    relative_high: float
    standard_error: float
    users: int

    @property
    def is_better(self) -> bool:
        """The whole interval lies above 0."""
        return self.low > 0

    def is_not_worse(self, margin: float) -> bool:
        """The whole interval of the relative difference lies above ``-margin``."""
        return self.relative_low >= -margin


def compare(challenger: np.ndarray, champion: np.ndarray, rng: np.random.Generator, resamples: int) -> Paired:
    """Bootstrap over users of the paired difference, absolute and relative to the champion's mean.

    The interval is that of percentiles, no narrower than the normal one of the same standard error. Values are
    per user ``(U,)``; the same resample serves numerator and denominator.
    """
    n = len(challenger)
    means = np.empty((resamples, 2))
    both = np.stack([challenger, champion], axis=1).astype(np.float64)
    if not np.isfinite(both).all():
        return Paired(*(float("nan"),) * 8, users=n)
    for row in range(resamples):
        means[row] = both[rng.integers(0, n, n)].mean(0)
    ours, theirs = both.mean(0)
    gaps = means[:, 0] - means[:, 1]
    low, high = _interval(float(ours - theirs), gaps)
    relative_low, relative_high = float("-inf"), float("inf")
    if theirs > 0:
        ratios = gaps / np.maximum(means[:, 1], 1e-12)
        relative_low, relative_high = _interval(float((ours - theirs) / theirs), ratios)
    return Paired(
        float(ours), float(theirs), float(ours - theirs), low, high, relative_low, relative_high,
        float(gaps.std(ddof=1)), n,
    )  # fmt: skip


def _interval(centre: float, drawn: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(drawn, [0.025, 0.975])
    reach = NormalDist().inv_cdf(0.975) * float(drawn.std(ddof=1))
    return min(float(low), centre - reach), max(float(high), centre + reach)


def harm_p_value(challenger: np.ndarray, champion: np.ndarray, margin: float) -> float:
    """One-sided p-value of "worse by no more than ``margin``, relative": small where a slice is really worse.

    A t statistic of ``challenger - (1 - margin) champion`` over users, by the normal distribution.
    """
    gaps = challenger - (1 - margin) * champion
    error = float(gaps.std(ddof=1)) / np.sqrt(len(gaps))
    if error == 0:
        return 1.0 if gaps.mean() >= 0 else 0.0
    return NormalDist().cdf(float(gaps.mean()) / error)


def holm(p_values: Mapping[str, float], level: float) -> tuple[str, ...]:
    """Names whose hypothesis is rejected with the family's error at most ``level`` (Holm 1979).

    >>> holm({"a": 0.01, "b": 0.04, "c": 0.03}, 0.05)
    ('a',)
    """
    rejected = []
    for rank, (name, value) in enumerate(sorted(p_values.items(), key=lambda pair: pair[1])):
        if value > level / (len(p_values) - rank):
            break
        rejected.append(name)
    return tuple(rejected)

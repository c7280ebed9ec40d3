"""Uncertainty of a mean over users, and of the difference between two systems on the same users."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Difference:
    """Mean of ``a - b`` over users with its 95 % interval."""

    mean: float
    low: float
    high: float
    standard_error: float


def standard_error(values: np.ndarray) -> float:
    """Standard error of the mean over users; 0 for fewer than two."""
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0


def paired_bootstrap(a: np.ndarray, b: np.ndarray, rng: np.random.Generator, resamples: int = 1000) -> Difference:
    """Percentile bootstrap over users of the mean paired difference (Efron and Tibshirani 1993, ch. 13).

    Args:
        a: One system's values ``(U,)``.
        b: The other's, same users in the same order.
        rng: Source of the resamples.
        resamples: How many.
    """
    gaps = a - b
    weights = rng.multinomial(len(gaps), np.full(len(gaps), 1 / len(gaps)), size=resamples)
    means = weights @ gaps / len(gaps)
    low, high = np.quantile(means, [0.025, 0.975])
    return Difference(float(gaps.mean()), float(low), float(high), standard_error(gaps))

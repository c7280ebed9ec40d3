"""What would the challenger have earned? Off-policy estimates against the live release from logged propensities.

Three estimators of the difference in mean reward between challenger and champion on the same impressions:
self-normalised importance sampling (SNIPS, Swaminathan and Joachims 2015), the direct method (DM), and doubly robust
(DR, Dudík et al. 2011). Weights are never clipped: clipping trades a visible lack of support for an invisible bias.
Intervals resample users, not impressions: impressions of one user are no independent draws.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from core.errors import FeedbackError

Verdict = Literal["pass", "fail", "unknown"]
"""unknown: the logs cannot tell. It is not a pass."""


@dataclass(frozen=True)
class LoggedChoices:
    """Logged decisions, all ``(n,)``: one item at one place, and what two releases would have done there.

    Attributes:
        users: Whose, int64; equal numbers are one user.
        rewards: What followed, float64.
        logged: Probability of the logged item under the policy that logged it, in (0, 1].
        champion: Probability of the same item under the live release.
        challenger: Under the challenger.
        supported: Share of the challenger's probability that lies on items which the logging policy could show.
        predicted: A reward model's value of the logged item; zeros turn DR into plain importance weighting.
        champion_value: That model's expected value of the champion's choice.
        challenger_value: Of the challenger's.
    """

    users: np.ndarray
    rewards: np.ndarray
    logged: np.ndarray
    champion: np.ndarray
    challenger: np.ndarray
    supported: np.ndarray
    predicted: np.ndarray
    champion_value: np.ndarray
    challenger_value: np.ndarray

    def __post_init__(self) -> None:
        for name, values in vars(self).items():
            if len(values) != len(self.users) or not np.isfinite(values).all():
                raise FeedbackError(f"{name} of the logged choices is not finite or not as long as the others")
        if ((self.logged <= 0) | (self.logged > 1)).any():
            raise FeedbackError(
                "a logged propensity lies outside (0, 1]", expected="rows for estimates only (for_estimates)"
            )

    def __len__(self) -> int:
        return len(self.users)


@dataclass(frozen=True)
class Support:
    """What the logs have to have before an estimate counts; see section ``off_policy`` of the gate's rules."""

    least_choices: int
    effective_share: float
    overlap: float
    largest_weight_share: float


@dataclass(frozen=True)
class Estimate:
    """A mean and its 95 % interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class OffPolicy:
    """The verdict and everything it rests on.

    Attributes:
        verdict: pass, fail, or unknown where the logs lack support.
        reason: For people.
        snips: Challenger minus champion.
        direct: The same by the reward model alone; for comparison, no rule reads it.
        doubly_robust: The same.
        mean_weight: Of the challenger's weights; 1 where propensities are right.
        champion_value: The champion's estimated reward.
        observed: Observed mean reward of the champion's own choices; None without any.
        choices: How many.
        users: How many.
        effective_size: ``(sum w)^2 / sum w^2``.
        overlap: Mean of ``supported``.
        largest_weight_share: Of the sum of weights.
    """

    verdict: Verdict
    reason: str
    snips: Estimate | None = None
    direct: Estimate | None = None
    doubly_robust: Estimate | None = None
    mean_weight: Estimate | None = None
    champion_value: Estimate | None = None
    observed: float | None = None
    choices: int = 0
    users: int = 0
    effective_size: float = 0.0
    overlap: float = 0.0
    largest_weight_share: float = 0.0

    def as_facts(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {name: vars(value) if isinstance(value, Estimate) else value for name, value in vars(self).items()}


def judge(
    choices: LoggedChoices,
    support: Support,
    *,
    margin: float,
    rng: np.random.Generator,
    resamples: int = 1000,
    by_champion: np.ndarray | None = None,
) -> OffPolicy:
    """Whether the challenger earns at least what the champion does, less ``margin``.

    Args:
        choices: The logs.
        support: What they have to have.
        margin: Loss that is allowed, in units of the reward.
        rng: Source of the resamples.
        resamples: How many.
        by_champion: bool ``(n,)``, choices that the champion itself made: their mean reward checks its estimate.
    """
    if len(choices) == 0:
        return OffPolicy("unknown", "no choices with a usable propensity")
    weight, base = choices.challenger / choices.logged, choices.champion / choices.logged
    total = float(weight.sum())
    size = total**2 / float((weight**2).sum()) if total > 0 else 0.0
    largest = float(weight.max()) / total if total > 0 else 1.0
    draws = _Resampled(choices.users, rng, resamples)
    rewards, predicted = choices.rewards, choices.predicted
    gain = choices.challenger_value - choices.champion_value
    robust = gain + (weight - base) * (rewards - predicted)
    snips = None
    if total > 0 and base.sum() > 0:
        ours, theirs = draws.ratio(weight * rewards, weight), draws.ratio(base * rewards, base)
        snips = _estimate(ours - theirs)
    champion = draws.mean(base * rewards)
    own = by_champion if by_champion is not None and by_champion.any() else None
    observed = float(rewards[own].mean()) if own is not None else None
    gap = draws.mean(base * rewards) - draws.ratio(rewards * own, own.astype(float)) if own is not None else None
    found = OffPolicy(
        "pass",
        "not worse beyond the margin",
        snips,
        _estimate(draws.mean(gain)),
        _estimate(draws.mean(robust)),
        _estimate(draws.mean(weight)),
        _estimate(champion),
        observed,
        len(choices),
        draws.clusters,
        size,
        float(choices.supported.mean()),
        largest,
    )
    verdict, reason = _ruling(found, support, margin, None if gap is None else _estimate(gap))
    return OffPolicy(**{**vars(found), "verdict": verdict, "reason": reason})


def _ruling(found: OffPolicy, support: Support, margin: float, gap: Estimate | None) -> tuple[Verdict, str]:
    needed = max(support.least_choices, support.effective_share * found.choices)
    if found.snips is None or found.doubly_robust is None or found.mean_weight is None:
        return "unknown", "a release would never have made any of the logged choices"
    if found.overlap < support.overlap:
        return "unknown", f"overlap {found.overlap:.2f}, needed {support.overlap:.2f}"
    if found.effective_size < needed:
        return "unknown", f"effective sample size {found.effective_size:,.0f}, needed {needed:,.0f}"
    if found.largest_weight_share > support.largest_weight_share:
        return "unknown", (
            f"one choice has {found.largest_weight_share:.1%} of the weight, at most {support.largest_weight_share:.1%}"
        )
    if not found.mean_weight.low <= 1 <= found.mean_weight.high:
        return "fail", f"mean weight {found.mean_weight.mean:.3f} is not 1: the logged propensities are wrong"
    if gap is not None and not gap.low <= 0 <= gap.high:
        return "fail", f"the champion's estimate misses its observed reward {found.observed:.4f}: the logs are wrong"
    for name, value in (("SNIPS", found.snips), ("DR", found.doubly_robust)):
        if value.low < -margin:
            return "fail", f"{name} difference may be {value.low:+.5f}, allowed {-margin:+.5f}"
    return "pass", "not worse beyond the margin"


class _Resampled:
    """Bootstrap over users: sums per user once, then weighted sums of them. Row 0 is the sample itself."""

    def __init__(self, users: np.ndarray, rng: np.random.Generator, resamples: int) -> None:
        self._owner = np.unique(users, return_inverse=True)[1]
        self.clusters = int(self._owner.max()) + 1
        drawn = rng.multinomial(self.clusters, np.full(self.clusters, 1 / self.clusters), size=resamples)
        self._counts = np.vstack([np.ones((1, self.clusters)), drawn])

    def sums(self, values: np.ndarray) -> np.ndarray:
        """``(1 + resamples,)``."""
        totals: np.ndarray = self._counts @ np.bincount(self._owner, values, minlength=self.clusters)
        return totals

    def ratio(self, top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
        below = self.sums(bottom)
        return np.divide(self.sums(top), below, out=np.zeros_like(below), where=below > 0)

    def mean(self, values: np.ndarray) -> np.ndarray:
        return self.ratio(values, np.ones(len(values)))


def _estimate(values: np.ndarray) -> Estimate:
    """The sample's own value with a 95 % interval: percentiles of the resamples, widened to the normal one of the
    same standard error on the side where that reaches further (few users make percentiles too narrow)."""
    mean, drawn = float(values[0]), values[1:]
    low, high = np.quantile(drawn, [0.025, 0.975])
    reach = 1.96 * float(drawn.std(ddof=1))
    return Estimate(mean, min(float(low), mean - reach), max(float(high), mean + reach))

"""Decides what happens to a canary: hold, advance, or roll back. Pure statistics over counters of the two arms.

Intervals are always valid: they hold at every look at once, so that looking often promotes nothing bad and rolls
nothing good back. Rates use the empirical-Bernstein time-uniform bound for means of values in 0..1 (Howard et al. 2021,
in the stitched form with a union over looks that double).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from core.sections import CanarySettings

STAGES = (0.01, 0.05, 0.25, 0.5, 1.0)
"""Shares of the users that a canary answers, one after the other."""


def next_stage(weight: float) -> float:
    """The share after ``weight``."""
    return next((stage for stage in STAGES if stage > weight + 1e-9), STAGES[-1])


Verdict = Literal["hold", "advance", "rollback"]


class ArmCounts(BaseModel):
    """What happened on one arm since the stage began."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    users: int = Field(ge=0)
    """Different users: what is compared with the weight."""
    requests: int = Field(ge=0)
    errors: int = Field(ge=0)
    fallbacks: int = Field(ge=0)
    """Requests answered by the fall-back."""
    clicked: int = Field(ge=0)
    """Requests with at least one click."""
    click_design: float = Field(1.0, ge=1)
    """Variance of the click rate relative to that of as many independent requests: requests of one user are alike, and
    so many fewer count (Kish's design effect)."""
    p99_ms: float = Field(ge=0)


@dataclass(frozen=True)
class Decision:
    """What to do, and why."""

    verdict: Verdict
    reason: str


def decide(stable: ArmCounts, canary: ArmCounts, weight: float, rules: CanarySettings | None = None) -> Decision:
    """One look at a running canary.

    Args:
        stable: The live release's counts since the stage began.
        canary: The canary's.
        weight: Share of users that it was dealt.
        rules: Limits; the defaults when None.
    """
    rules = rules or CanarySettings()
    p = sample_ratio_p(stable.users, canary.users, weight)
    if p < rules.srm_p:
        return Decision("hold", f"sample ratio mismatch, p {p:.2g}: users are not dealt as the weight says")
    share = rules.alpha / 3
    for name, field, margin, sign in (
        ("error rate", "errors", rules.error_margin, 1),
        ("fall-back rate", "fallbacks", rules.fallback_margin, 1),
        ("click rate", "clicked", rules.click_margin, -1),
    ):
        ours, theirs = _effective(canary, field), _effective(stable, field)
        low, high = difference(*ours, *theirs, share)
        worst = low if sign > 0 else -high
        if worst > margin:
            return Decision("rollback", f"{name} differs by {low:+.4f} to {high:+.4f}, margin {margin}")
    enough = min(stable.requests, canary.requests) >= rules.min_requests
    if enough and canary.p99_ms > rules.p99_ratio * stable.p99_ms:
        return Decision("rollback", f"p99 {canary.p99_ms:.1f} ms against {stable.p99_ms:.1f} ms")
    if not enough:
        return Decision("hold", f"{canary.requests} requests of the canary, {rules.min_requests} wanted on each arm")
    return Decision("advance", f"no guardrail touched after {canary.requests} requests")


def sample_ratio_p(stable: int, canary: int, weight: float) -> float:
    """p-value of the chi-square test (one degree of freedom) that users were dealt by ``weight``."""
    total = stable + canary
    if total == 0 or not 0 < weight < 1:
        return 1.0
    wanted = total * weight
    chi2 = (canary - wanted) ** 2 / wanted + (canary - wanted) ** 2 / (total - wanted)
    return math.erfc(math.sqrt(chi2 / 2))


def _effective(arm: ArmCounts, field: str) -> tuple[float, float]:
    """Hits and requests of a rate, as many as would be worth as much were they independent."""
    design = arm.click_design if field == "clicked" else 1.0
    return getattr(arm, field) / design, arm.requests / design


def difference(hits: float, of: float, other_hits: float, other_of: float, alpha: float) -> tuple[float, float]:
    """Always-valid interval of the difference of two rates, the first minus the second."""
    one, other = rate_interval(hits, of, alpha / 2), rate_interval(other_hits, other_of, alpha / 2)
    return one[0] - other[1], one[1] - other[0]


def rate_interval(hits: float, of: float, alpha: float) -> tuple[float, float]:
    """Interval that holds a rate at all numbers of requests together with probability 1 - ``alpha``.

    Empirical Bernstein at level ``alpha / (e (e + 1))`` within the e-th doubling of the number, summed over all e.
    """
    if of < 2:
        return 0.0, 1.0
    epoch = math.floor(math.log2(of)) + 1
    level = math.log(3 * epoch * (epoch + 1) / alpha)
    mean = hits / of
    begun = 2 ** (epoch - 1)  # the bound of an epoch is the one at its first number: of / begun is below 2
    radius = math.sqrt(2 * max(mean * (1 - mean), 1 / of) * level * (of / begun) / of) + 3 * level * (of / begun) / of
    return max(0.0, mean - radius), min(1.0, mean + radius)

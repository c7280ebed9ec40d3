from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from core.rollout import ArmCounts, decide, rate_interval, sample_ratio_p


def arm(**changes: Any) -> ArmCounts:
    fields = {"users": 5_000, "requests": 20_000, "errors": 10, "fallbacks": 20, "clicked": 4_000, "p99_ms": 20.0}
    return ArmCounts(**{**fields, **changes})


def test_an_equal_canary_advances_and_a_young_one_holds() -> None:
    assert decide(arm(), arm(), 0.5).verdict == "advance"
    assert decide(arm(), arm(requests=500, errors=0, fallbacks=1, clicked=100), 0.5).verdict == "hold"


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"errors": 1_500}, "error rate"), ({"fallbacks": 2_000}, "fall-back"), ({"clicked": 2_000}, "click"),
     ({"p99_ms": 40.0}, "p99")],
)  # fmt: skip
def test_a_worse_canary_rolls_back_with_its_reason(change: dict[str, Any], reason: str) -> None:
    decision = decide(arm(), arm(**change), 0.5)
    assert decision.verdict == "rollback"
    assert reason in decision.reason


def test_a_wrong_share_of_users_holds_whatever_the_rates_say() -> None:
    assert decide(arm(users=6_000), arm(users=5_000, errors=5_000), 0.5).verdict == "hold"


def test_sample_ratio_alarms_seldom_on_fair_deals_and_mostly_on_a_bug() -> None:
    rng = np.random.default_rng(0)
    fair = [sample_ratio_p(20_000 - n, n, 0.25) for n in rng.binomial(20_000, 0.25, 2_000)]
    buggy = [sample_ratio_p(20_000 - n, n, 0.25) for n in rng.binomial(20_000, 0.27, 200)]
    assert np.mean(np.array(fair) < 0.001) < 0.004
    assert np.mean(np.array(buggy) < 0.001) > 0.95


def test_intervals_hold_at_every_look_together() -> None:
    rng = np.random.default_rng(1)
    missed = 0
    for _ in range(300):
        hits = np.cumsum(rng.random(3_000) < 0.1)
        looks = range(10, 3_000, 10)
        inside = [low <= 0.1 <= high for low, high in (rate_interval(int(hits[n - 1]), n, 0.05) for n in looks)]
        missed += not all(inside)
    assert missed <= 15 + 12


def test_an_injected_loss_is_found_within_the_budget_of_a_stage() -> None:
    rng = np.random.default_rng(2)
    for at in range(1_000, 60_000, 1_000):
        stable = arm(requests=at, users=at // 4, clicked=int(rng.binomial(at, 0.2)), errors=0, fallbacks=0)
        canary = arm(requests=at, users=at // 4, clicked=int(rng.binomial(at, 0.1)), errors=0, fallbacks=0)
        if decide(stable, canary, 0.5).verdict == "rollback":
            break
    assert at <= 20_000

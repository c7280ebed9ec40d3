"""G1 on simulated paired users: who is refused, who passes, and how often."""

from __future__ import annotations

import numpy as np
import pytest

from core.sections import GateSettings
from pipeline.gate.findings import Finding, gate_verdict
from pipeline.gate.offline import Comparison, Measured, check_offline
from pipeline.gate.rules import read_rules
from pipeline.gate.statistics import compare, holm

RULES = read_rules(GateSettings().rules).offline


def paired_users(rng: np.random.Generator, users: int, relative: float, noise: float = 0.05) -> Comparison:
    """Per-user quality as of a real release (mean 0.15, many zeros), and a challenger that is ``relative`` better."""
    base = rng.beta(0.6, 1.4, users) * (rng.random(users) < 0.5)
    ours = base * (1 + relative) + rng.normal(0, noise, users) * (base > 0)
    metrics = ("ndcg@10", "recall@50", "mrr")
    return Comparison(
        Measured(dict.fromkeys(metrics, ours), 0.5, 0.3),
        Measured(dict.fromkeys(metrics, base), 0.5, 0.3),
        {"popularity": Measured({"ndcg@10": base * 0.5}, 0.1, 0.0)},
        {"half": np.arange(users) % 2 == 0, "other half": np.arange(users) % 2 == 1},
    )


def judged(comparison: Comparison, seed: int = 0) -> list[Finding]:
    return check_offline(comparison, RULES, np.random.default_rng(seed), 200)


def share_passed(relative: float, runs: int, users: int = 4_000) -> float:
    rng = np.random.default_rng(11)
    return float(np.mean([gate_verdict(judged(paired_users(rng, users, relative))) == "pass" for _ in range(runs)]))


def test_challenger_worse_by_two_percent_is_refused() -> None:
    assert share_passed(-0.02, 15) == 0.0


def test_challenger_at_the_margin_is_promoted_in_at_most_one_of_twenty() -> None:
    assert share_passed(-0.01, 20) <= 0.05


def test_equal_and_better_challengers_pass() -> None:
    assert share_passed(0.0, 15) >= 0.7
    assert share_passed(0.01, 15) >= 0.95


@pytest.mark.parametrize("users", [200, 1_000])
def test_interval_covers_the_true_difference(users: int) -> None:
    rng = np.random.default_rng(5)
    covered = 0
    for _ in range(200):
        world = paired_users(rng, users, 0.05)
        a, b = world.challenger.per_user["mrr"], world.champion.per_user["mrr"]
        interval = compare(a, b, rng, 200)
        covered += interval.low <= 0.05 * 0.5 * 0.3 <= interval.high
    assert covered >= 0.93 * 200


def test_better_overall_but_worse_in_a_slice_is_refused_by_the_slice() -> None:
    rng = np.random.default_rng(3)
    world = paired_users(rng, 4_000, 0.10)
    ours = world.challenger.per_user["ndcg@10"].copy()
    few = np.arange(4_000) < 400
    ours[few] = world.champion.per_user["ndcg@10"][few] * 0.6
    metrics = dict.fromkeys(("ndcg@10", "recall@50", "mrr"), ours)
    findings = judged(Comparison(Measured(metrics, 0.5, 0.3), world.champion, {}, {"new users": few, "others": ~few}))
    assert [f.check for f in findings if f.verdict == "fail"] == ["slices"]
    assert "new users" in next(f for f in findings if f.check == "slices").reason


def test_losing_to_a_baseline_is_refused() -> None:
    world = paired_users(np.random.default_rng(4), 2_000, 0.0)
    strong = {"popularity": Measured({"ndcg@10": world.challenger.per_user["ndcg@10"] + 0.01}, 0.1, 0.0)}
    findings = judged(Comparison(world.challenger, world.champion, strong, {}))
    assert any(f.check == "beats popularity" and f.verdict == "fail" for f in findings)


def first_release(relative: float) -> Comparison:
    """No live release: popularity stands in, and is a baseline too."""
    world = paired_users(np.random.default_rng(6), 4_000, relative, noise=0.02)
    chance = Measured(dict.fromkeys(world.champion.per_user, world.champion.per_user["mrr"] * 0.1), 1.0, 0.9)
    return Comparison(
        world.challenger, world.champion, {"popularity": world.champion, "random": chance}, {}, is_first=True
    )


def test_first_release_as_good_as_popularity_passes_and_says_that_nothing_was_live() -> None:
    findings = judged(first_release(0.0))
    assert gate_verdict(findings) == "pass"
    assert "popularity" in next(f for f in findings if f.check == "live release").reason
    assert not any(f.check == "beats popularity" for f in findings)  # asked once, and as "no worse"


def test_first_release_worse_than_popularity_is_refused_once_per_metric() -> None:
    failed = [f.check for f in judged(first_release(-0.05)) if f.verdict == "fail"]
    assert failed == [f"{metric} not worse than popularity" for metric in ("ndcg@10", "recall@50", "mrr")]


def test_too_few_users_are_unknown_and_no_pass() -> None:
    assert gate_verdict(judged(paired_users(np.random.default_rng(0), 20, 0.5))) == "unknown"


def test_nan_of_a_release_never_passes() -> None:
    world = paired_users(np.random.default_rng(0), 500, 0.1)
    metrics = {name: np.full(500, np.nan) for name in world.challenger.per_user}
    assert gate_verdict(judged(Comparison(Measured(metrics, 0.5, 0.3), world.champion, {}, {}))) == "fail"


def test_collapsed_coverage_is_refused() -> None:
    world = paired_users(np.random.default_rng(0), 2_000, 0.05)
    narrow = Measured(world.challenger.per_user, 0.1, 0.3)
    assert gate_verdict(judged(Comparison(narrow, world.champion, {}, {}))) == "fail"


def test_holm_rejects_step_by_step() -> None:
    assert set(holm({"a": 0.001, "b": 0.02, "c": 0.5}, 0.05)) == {"a", "b"}
    assert holm({"a": 0.03, "b": 0.03}, 0.05) == ()

"""Off-policy estimates against simulated truth, and what makes them refuse to answer."""

from __future__ import annotations

import numpy as np
import pytest

from core.errors import FeedbackError
from feedback.estimates import LoggedChoices, Support, judge

SUPPORT = Support(least_choices=1000, effective_share=0.1, overlap=0.8, largest_weight_share=0.05)
ACTIONS = 5


def softmax(values: np.ndarray) -> np.ndarray:
    powers = np.exp(values)
    shares: np.ndarray = powers / powers.sum(1, keepdims=True)
    return shares


class World:
    """Users with tastes; three policies over five items, and the true difference in reward."""

    def __init__(self, rng: np.random.Generator, users: int = 400, visits: int = 5, lift: float = 0.5) -> None:
        self.users = np.repeat(np.arange(users), visits)
        taste = rng.normal(0, 1, (users, ACTIONS))[self.users]
        self.chances = 1 / (1 + np.exp(-(taste - 1.5)))
        self.logging = softmax(0.5 * taste)
        self.champion, self.challenger = softmax(0.6 * taste), softmax((0.6 + lift) * taste)
        n = len(self.users)
        shown = (rng.random((n, 1)) < self.logging.cumsum(1)).argmax(1)
        at = np.arange(n)
        rewards = (rng.random(n) < self.chances[at, shown]).astype(float)
        model = self.chances * 0.8 + 0.05  # a reward model that is wrong
        self.choices = LoggedChoices(
            self.users,
            rewards,
            self.logging[at, shown],
            self.champion[at, shown],
            self.challenger[at, shown],
            np.ones(n),
            model[at, shown],
            (model * self.champion).sum(1),
            (model * self.challenger).sum(1),
        )


def truth(rng: np.random.Generator) -> float:
    big = World(rng, users=200_000, visits=1)
    return float(((big.challenger - big.champion) * big.chances).sum(1).mean())


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(1)
    expected = truth(rng)
    runs = 300
    covered = {"snips": 0, "doubly_robust": 0, "mean_weight": 0}
    for _ in range(runs):
        found = judge(World(rng).choices, SUPPORT, margin=0.0, rng=rng, resamples=200)
        for name, at in (("snips", expected), ("doubly_robust", expected), ("mean_weight", 1.0)):
            interval = getattr(found, name)
            covered[name] += interval.low <= at <= interval.high
    assert min(covered.values()) >= 0.93 * runs, covered


def test_better_challenger_passes_and_worse_one_fails() -> None:
    rng = np.random.default_rng(2)
    better = judge(World(rng, users=2000, lift=0.5).choices, SUPPORT, margin=0.005, rng=rng)
    worse = judge(World(rng, users=2000, lift=-1.0).choices, SUPPORT, margin=0.005, rng=rng)
    assert (better.verdict, worse.verdict) == ("pass", "fail"), (better.reason, worse.reason)


def changed(choices: LoggedChoices, **values: np.ndarray) -> LoggedChoices:
    return LoggedChoices(**{**vars(choices), **values})


def test_deterministic_logs_without_overlap_are_unknown() -> None:
    rng = np.random.default_rng(3)
    choices = World(rng).choices
    n = len(choices)
    alone = changed(choices, logged=np.ones(n), challenger=np.zeros(n), supported=np.zeros(n))
    assert judge(alone, SUPPORT, margin=1.0, rng=rng).verdict == "unknown"
    half = changed(choices, supported=np.full(n, 0.5))
    assert "overlap" in judge(half, SUPPORT, margin=1.0, rng=rng).reason


def test_one_huge_weight_is_unknown() -> None:
    rng = np.random.default_rng(4)
    choices = World(rng, users=3000).choices
    logged = choices.logged.copy()
    logged[0] = 1e-5
    loose = Support(least_choices=1, effective_share=0.0, overlap=0.8, largest_weight_share=0.05)
    found = judge(changed(choices, logged=logged), loose, margin=1.0, rng=rng)
    assert found.verdict == "unknown"
    assert "of the weight" in found.reason


def test_few_effective_choices_are_unknown() -> None:
    rng = np.random.default_rng(5)
    assert "effective" in judge(World(rng, users=50).choices, SUPPORT, margin=1.0, rng=rng).reason


def test_wrong_propensities_fail_by_the_mean_weight() -> None:
    rng = np.random.default_rng(6)
    choices = World(rng, users=2000).choices
    found = judge(changed(choices, logged=np.minimum(1, choices.logged * 1.3)), SUPPORT, margin=1.0, rng=rng)
    assert found.verdict == "fail"
    assert "mean weight" in found.reason


def test_champion_that_misses_its_observed_reward_fails() -> None:
    rng = np.random.default_rng(7)
    choices = World(rng, users=2000).choices
    lucky = rng.random(len(choices)) < 0.3 + 0.6 * choices.rewards
    found = judge(choices, SUPPORT, margin=1.0, rng=rng, by_champion=lucky)
    assert found.verdict == "fail"
    assert "observed" in found.reason


def test_no_choices_are_unknown() -> None:
    nothing = LoggedChoices(*(np.zeros(0) for _ in range(9)))
    assert judge(nothing, SUPPORT, margin=1.0, rng=np.random.default_rng(0)).verdict == "unknown"


@pytest.mark.parametrize("bad", [0.0, -0.1, 1.5, np.nan])
def test_impossible_propensity_is_refused(bad: float) -> None:
    choices = World(np.random.default_rng(8), users=10).choices
    with pytest.raises(FeedbackError):
        changed(choices, logged=np.full(len(choices), bad))

"""The search: fronts, limits, and a choice that says why."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from compression.candidate import Pass, Sizes
from compression.goals import GOALS
from compression.judge import Verdict, ask, overlap, slices, verdict, verdict_within
from compression.search import Judged, front, missed, shortlist
from core.bootstrap import Difference
from core.dataset import Dataset


def judged(name: str, size: int, kept: float) -> Judged:
    same = Difference(0.0, 0.0, 0.0, 0.0)
    verdict = Verdict(0.1, same, same, kept)
    return Judged("recall_mf", name, "fp32", Sizes(tables=size), (Pass("int8", {}, 0.1),), (), {}, verdict)


def test_front_holds_what_no_other_beats() -> None:
    found = [judged("a", 10, 0.5), judged("b", 20, 0.9), judged("worse", 30, 0.8), judged("c", 40, 0.95)]
    assert [one.name for one in front(found)] == ["a", "b", "c"]


def test_shortlist_is_spread_over_the_front_and_leaves_floats_out() -> None:
    original = replace(judged("fp32", 1000, 1.0), passes=())
    floats = replace(judged("rank50", 500, 0.99), passes=(Pass("rank", {}, 0.1),))
    many = [judged(str(size), size, size / 1000) for size in range(100, 130)]
    names = [one.name for one in shortlist([original, floats, *many])]
    assert len(names) == 8
    assert {"100", "129"} <= set(names)
    assert "rank50" not in names


@pytest.mark.parametrize(
    ("ratio", "loss", "kept", "count"), [(14.0, -0.005, 0.95, 0), (13.9, 0.0, 1.0, 1), (20.0, -0.006, 0.94, 2)]
)
def test_missed_limits_are_named(ratio: float, loss: float, kept: float, count: int) -> None:
    verdict = Verdict(0.1, Difference(loss, loss, loss, 0.0), Difference(0, 0, 0, 0), kept)
    assert len(missed(GOALS["balanced"], verdict, ratio)) == count


def test_overlap_counts_shared_items_of_the_original_list() -> None:
    original, lists = np.array([[1, 2, 3, 4], [5, -1, -1, -1]]), np.array([[4, 9, 2, 8], [7, 6, 5, 4]])
    assert overlap(lists, original, 4).tolist() == [0.5, 1.0]


def test_asked_users_are_warm_and_their_truth_is_new(small_dataset: Dataset) -> None:
    asked = ask(small_dataset, ("train",), "valid", 50, np.random.default_rng(0))
    past = small_dataset.events.of_splits(("train",))
    seen = set(zip(past.user_rows.tolist(), past.item_rows.tolist(), strict=True))
    assert 0 < len(asked.users) <= 50
    owners = np.repeat(asked.users, asked.truth.sizes)
    assert not seen & set(zip(owners.tolist(), asked.truth.item_rows.tolist(), strict=True))
    assert (asked.truth.sizes > 0).all()
    assert (asked.lengths > 0).all()


def test_slices_part_users_by_history_and_by_what_they_did_next(small_dataset: Dataset) -> None:
    asked = ask(small_dataset, ("train",), "valid", 50, np.random.default_rng(0))
    popularity = np.bincount(small_dataset.events.of_splits(("train",)).item_rows, minlength=small_dataset.n_items)
    found = slices(asked, popularity)
    short, long = found["shortest third of histories"], found["longest third of histories"]
    rare, popular = found["rarer half of next items"], found["more popular half of next items"]
    assert asked.lengths[short].max() <= asked.lengths[long].min()
    assert (rare ^ popular).all()
    mean = [popularity[asked.truth.item_rows[a:b]].mean() for a, b in itertools.pairwise(asked.truth.starts)]
    assert np.array(mean)[rare].mean() < np.array(mean)[popular].mean()


def test_verdict_within_everybody_is_the_verdict_and_within_some_of_theirs_alone(small_dataset: Dataset) -> None:
    asked = ask(small_dataset, ("train",), "valid", 50, np.random.default_rng(0))
    rng = np.random.default_rng(1)
    original = np.argsort(rng.random((len(asked.users), asked.n_items)), axis=1)[:, :20]
    lists = original.copy()
    harmed = np.arange(len(asked.users)) % 2 == 0
    lists[harmed] = -1
    everybody = np.ones(len(asked.users), dtype=bool)
    assert verdict_within(everybody, lists, original, asked, 10, 0) == verdict(lists, original, asked, 10, 0)
    assert verdict_within(~harmed, lists, original, asked, 10, 0).overlap == 1
    assert verdict_within(harmed, lists, original, asked, 10, 0).overlap == 0

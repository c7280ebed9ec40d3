"""The search: fronts, limits, and a choice that says why."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from compression.candidate import Pass, Sizes
from compression.goals import GOALS
from compression.judge import Verdict, ask, overlap
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

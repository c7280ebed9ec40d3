from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from core.dataset import Dataset, Events
from core.errors import SettingsError
from core.features import FeatureTable
from core.vocabulary import Vocabulary
from pipeline.measure import fuse
from pipeline.question import held_out, item_slices, restrict, user_slices


def dataset(pairs: list[tuple[int, int, int]]) -> Dataset:
    """Events (user, item, split) of 4 users and 6 items."""
    users, items, splits = (np.array(column) for column in zip(*pairs, strict=True))
    n = len(pairs)
    events = Events(
        users.astype(np.int32), items.astype(np.int32), np.arange(n, dtype=np.float64),
        np.zeros(n, np.float32), np.full(n, np.nan, np.float32), splits.astype(np.uint8),
        np.zeros(n, np.uint8),
    )  # fmt: skip
    none = FeatureTable((), np.zeros((0, 0), dtype=np.int32))
    ids = Vocabulary([f"u{row}" for row in range(4)]), Vocabulary([f"i{row}" for row in range(6)])
    return Dataset(events, *ids, ids[1].ids, none, none, True, False)


def test_fuse_puts_an_item_of_both_lists_before_one_of_a_single_list() -> None:
    fused = fuse((np.array([[1, 2]]), np.array([[3, 2]])), n_items=5, k=3)
    assert fused.tolist() == [[2, 1, 3]]


def test_fuse_fills_short_lists_with_minus_one() -> None:
    assert fuse((np.array([[4, -1]]), np.array([[4, -1]])), n_items=5, k=3).tolist() == [[4, -1, -1]]


def test_fuse_never_repeats_an_item() -> None:
    rng = np.random.default_rng(0)
    lists = tuple(np.stack([rng.permutation(20)[:8] for _ in range(30)]) for _ in range(2))
    for row in fuse(lists, n_items=20, k=16):
        kept = row[row >= 0]
        assert len(kept) == len(set(kept.tolist()))


def test_held_out_counts_cold_users_in_all_but_not_in_warm() -> None:
    question = held_out(dataset([(0, 0, 0), (0, 1, 2), (1, 2, 2)]), ("train", "valid"), "test")
    assert question.user_rows.tolist() == [0, 1]
    assert question.warm.tolist() == [True, False]


def test_held_out_drops_users_who_only_repeat_what_they_saw() -> None:
    question = held_out(dataset([(0, 0, 0), (0, 0, 2), (2, 3, 0), (2, 4, 2)]), ("train",), "test")
    assert question.user_rows.tolist() == [2]
    assert question.truth.item_rows.tolist() == [4]


def test_held_out_keeps_cold_items_in_the_truth() -> None:
    question = held_out(dataset([(0, 0, 0), (0, 5, 2)]), ("train",), "test")
    assert question.truth.sizes == pytest.approx([1])


def test_held_out_counts_only_liked_events_when_asked() -> None:
    data = dataset([(0, 0, 0), (0, 4, 2), (0, 5, 2), (1, 1, 0), (1, 2, 2)])
    values = np.array([3, 5, 1, 3, 2], np.float32)
    liked = replace(data, events=replace(data.events, raw_values=values), has_values=True)
    question = held_out(liked, ("train",), "test", "liked")
    assert question.user_rows.tolist() == [0]
    assert question.truth.item_rows.tolist() == [4]


def test_held_out_refuses_liked_when_there_are_no_values() -> None:
    with pytest.raises(SettingsError, match="without values"):
        held_out(dataset([(0, 0, 0), (0, 5, 2)]), ("train",), "test", "liked")


def test_user_slices_cover_everyone_once() -> None:
    pairs = [(user, item, 0) for user in range(3) for item in range(user)] + [(user, 5, 2) for user in range(3)]
    question = held_out(dataset(pairs), ("train",), "test")
    slices = user_slices(question)
    assert slices["new"].tolist() == [True, False, False]
    assert np.stack(list(slices.values())).sum(0).tolist() == [1, 1, 1]


def test_item_slices_split_the_events_in_halves() -> None:
    slices = item_slices(np.array([5, 1, 0, 3, 1]))
    assert slices["head"].tolist() == [True, False, False, False, False]
    assert slices["tail"].tolist() == [False, True, False, True, True]
    assert slices["cold"].tolist() == [False, False, True, False, False]


def test_restrict_keeps_users_in_place() -> None:
    question = held_out(dataset([(0, 0, 0), (0, 1, 2), (1, 2, 2), (1, 3, 2)]), ("train",), "test")
    truth = restrict(question.truth, np.array([False, False, True, False, False, False]))
    assert truth.sizes.tolist() == [0, 1]
    assert truth.item_rows.tolist() == [2]

"""Cuts and batches: nothing of the future in a history, cuts at sessions, the same features as in serving."""

from __future__ import annotations

import numpy as np
import pytest

from core.dataset import Dataset
from core.histories import pad
from core.sections import GatSettings
from tests.suites.recall_data import SESSION_EVENTS, block_dataset
from training.models.gat_examples import Cuts, ExampleBatch, ExampleSource

FIT = ("train",)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return block_dataset()


def source_of(dataset: Dataset, **changes: float) -> ExampleSource:
    return ExampleSource(dataset.histories(FIT), GatSettings(**changes), dataset.has_times)


def batch_at(dataset: Dataset, cuts: list[int], **changes: float) -> ExampleBatch:
    given = Cuts(np.arange(len(cuts)), np.array(cuts), np.ones(len(cuts), np.float32))
    return source_of(dataset, **changes).batch(given, np.random.default_rng(0))


def test_heavy_cuts_lie_at_session_gaps(dataset: Dataset) -> None:
    cuts = source_of(dataset).draw(np.random.default_rng(0))
    assert (cuts.cuts[cuts.weights == 1] == SESSION_EVENTS).all()
    assert (cuts.weights == 1).sum() == dataset.n_users


def test_light_cuts_lie_anywhere_and_leave_a_target(dataset: Dataset) -> None:
    cuts = source_of(dataset).draw(np.random.default_rng(0))
    light = cuts.cuts[cuts.weights < 1]
    assert set(light) == set(range(2 * SESSION_EVENTS))


def test_users_with_one_session_have_no_heavy_cut() -> None:
    cuts = source_of(block_dataset(sessions=1)).draw(np.random.default_rng(0))
    assert (cuts.weights < 1).all()


def test_history_and_targets_are_all_events_of_the_user(dataset: Dataset) -> None:
    batch = batch_at(dataset, [5, 0, 9], drop=0.0)
    histories = dataset.histories(FIT)
    for user, cut in enumerate([5, 0, 9]):
        oldest_first = histories.of(user).item_rows[::-1]
        assert sorted(batch.edge_items[batch.edge_users == user]) == sorted(oldest_first[:cut])
        assert sorted(batch.target_items[batch.target_users == user]) == sorted(oldest_first[cut:])


def test_dropped_events_stay_masked(dataset: Dataset) -> None:
    batch = batch_at(dataset, [8] * 20, drop=0.5)
    assert len(batch.masked_items) == 160
    assert 40 < len(batch.edge_items) < 120
    assert (batch.lengths == 8).all()


def test_edge_features_equal_padded_histories(dataset: Dataset) -> None:
    histories = dataset.histories(FIT)
    padded = pad(histories, dataset.n_items)
    batch = batch_at(dataset, list(histories.lengths), drop=0.0)
    places = batch.edge_users, batch.edge_positions.astype(int)
    np.testing.assert_array_equal(padded.rows[places], batch.edge_items)
    np.testing.assert_allclose(padded.ages[places], batch.edge_ages, atol=1e-4)
    np.testing.assert_allclose(
        (padded.ages.max(1, keepdims=True) - padded.ages)[places], batch.edge_since_first, atol=1e-3
    )
    np.testing.assert_array_equal(padded.values[places], batch.edge_values)


def test_long_histories_end_where_serving_ends(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.models.gat_examples.LONGEST_HISTORY", 4)
    batch = batch_at(dataset, [10], drop=0.0)
    assert sorted(batch.edge_positions) == [0, 1, 2, 3]
    assert batch.edge_since_first.min() == 0
    assert batch.lengths == [4]
    assert len(batch.masked_items) == 10


def test_events_without_times_are_shuffled_each_epoch() -> None:
    dataset = block_dataset(has_times=False)
    source, rng = source_of(dataset, drop=0.0), np.random.default_rng(0)
    given = Cuts(np.array([0]), np.array([8]), np.ones(1, np.float32))
    seen = set()
    for _ in range(5):
        source.draw(rng)
        batch = source.batch(given, rng)
        seen.add(tuple(sorted(batch.edge_items)))
        assert sorted([*batch.edge_items, *batch.target_items]) == sorted(dataset.histories(FIT).of(0).item_rows)
    assert len(seen) == 5


def test_limit_of_users_per_epoch_holds(dataset: Dataset) -> None:
    cuts = source_of(dataset, max_users_per_epoch=10).draw(np.random.default_rng(0))
    assert len(np.unique(cuts.users)) == 10


def test_popularity_counts_returns_fully_and_first_sessions_little(dataset: Dataset) -> None:
    found = source_of(dataset, random_cut_weight=0.25).popularity(dataset.n_items)
    histories = dataset.histories(FIT)
    place = np.arange(len(histories.item_rows)) % (2 * SESSION_EVENTS)  # newest first: the second session leads
    expected = np.bincount(histories.item_rows, np.where(place < SESSION_EVENTS, 1, 0.25), dataset.n_items)
    np.testing.assert_allclose(found, expected)


def test_popularity_counts_all_alike_when_nobody_returned() -> None:
    dataset = block_dataset(sessions=1)
    counts = np.bincount(dataset.events.item_rows, minlength=dataset.n_items)
    np.testing.assert_allclose(source_of(dataset, random_cut_weight=0.25).popularity(dataset.n_items), 0.25 * counts)

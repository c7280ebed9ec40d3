"""Samples of users, and windows one after the other."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tests.suites.recall_data import block_dataset
from training.combine.members import Sample, sample_by_weight, sample_without_replacement
from training.combine.windows import successive_windows


def test_sample_holds_the_events_of_each_drawn_user_in_time_order() -> None:
    dataset = block_dataset(n_users=12)
    users = np.array([7, 2, 7])
    drawn, events = Sample(users).of(dataset, dataset.events)
    assert drawn.n_users == 3
    assert (np.diff(events.timestamps) >= 0).all()
    for row, user in enumerate(users):
        wanted = dataset.events.where(dataset.events.user_rows == user)
        found = events.where(events.user_rows == row)
        assert np.array_equal(found.item_rows, wanted.item_rows)
        assert np.array_equal(found.timestamps, wanted.timestamps)


def test_sample_by_weight_draws_users_in_proportion() -> None:
    weights = np.array([0.0, 1.0, 2.0, 5.0])
    counts = np.zeros(4)
    for seed in range(200):
        users = sample_by_weight(weights, np.random.default_rng(seed)).users
        assert len(users) == 4
        counts += np.bincount(users, minlength=4)
    np.testing.assert_allclose(counts / counts.sum(), weights / weights.sum(), atol=0.03)


def test_sample_without_replacement_draws_the_share_once_each() -> None:
    users = sample_without_replacement(50, 0.3, np.random.default_rng(0)).users
    assert len(users) == len(np.unique(users)) == 15


def test_windows_follow_each_other_and_know_only_their_past() -> None:
    events = block_dataset().events
    windows = successive_windows(events, has_times=True, share=0.1, count=3, rng=np.random.default_rng(0))
    assert len(windows) == 3
    for before, after in itertools.pairwise(windows):
        assert before.future.timestamps.max() <= after.past.timestamps.max() < after.future.timestamps.min()
    for window in windows:
        assert window.past.timestamps.max() < window.future.timestamps.min()
        assert np.isin(window.future.user_rows, window.past.user_rows).all()


def test_windows_hide_disjoint_events_when_there_are_no_times() -> None:
    events = block_dataset(has_times=False).events
    windows = successive_windows(events, has_times=False, share=0.2, count=2, rng=np.random.default_rng(0))
    pairs = [set(zip(w.future.user_rows.tolist(), w.future.item_rows.tolist(), strict=True)) for w in windows]
    assert not pairs[0] & pairs[1]
    for window, hidden in zip(windows, pairs, strict=True):
        assert not hidden & set(zip(window.past.user_rows.tolist(), window.past.item_rows.tolist(), strict=True))
        assert len(window.future) == pytest.approx(0.2 * len(events), rel=0.15)


def test_windows_leave_half_of_the_events_as_past() -> None:
    events = block_dataset().events
    windows = successive_windows(events, has_times=True, share=0.2, count=9, rng=np.random.default_rng(0))
    assert len(windows) == 2

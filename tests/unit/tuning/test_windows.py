from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from core.dataset import Dataset, Events
from core.errors import SettingsError, TrainingError
from core.sections import TuneSettings
from tests.suites.recall_data import block_dataset
from training.tuning.windows import rolling_windows, without_test


def pairs(events: Events) -> set[tuple[int, int]]:
    return set(zip(events.user_rows.tolist(), events.item_rows.tolist(), strict=True))


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return block_dataset(sessions=4)


def test_past_of_a_window_ends_before_its_future(dataset: Dataset) -> None:
    for window in rolling_windows(dataset, TuneSettings()).windows:
        assert window.past.timestamps.max() < window.future.timestamps.min()


def test_later_windows_never_reach_into_earlier_ones(dataset: Dataset) -> None:
    windows = rolling_windows(dataset, TuneSettings()).windows
    for earlier, later in itertools.pairwise(windows):
        assert earlier.future.timestamps.max() < later.future.timestamps.min()
        assert pairs(earlier.past) < pairs(later.past)


def test_windows_have_no_test_event(dataset: Dataset) -> None:
    test = pairs(dataset.events.of_splits(("test",)))
    for window in rolling_windows(dataset, TuneSettings()).windows:
        assert not test & (pairs(window.past) | pairs(window.future))


def test_windows_predict_only_users_with_a_past(dataset: Dataset) -> None:
    for window in rolling_windows(dataset, TuneSettings()).windows:
        assert np.isin(window.future.user_rows, window.past.user_rows).all()


def test_data_without_times_hides_disjoint_shares_of_each_user() -> None:
    dataset = block_dataset(has_times=False)
    rolling = rolling_windows(dataset, TuneSettings())
    assert rolling.scheme == "folds"
    hidden = [pairs(window.future) for window in rolling.windows]
    assert not hidden[0] & hidden[1]
    for window in rolling.windows:
        assert not pairs(window.past) & pairs(window.future)
        assert set(window.future.user_rows) == set(dataset.events.of_splits(("train",)).user_rows)


def test_folds_depend_on_the_seed_alone() -> None:
    dataset = block_dataset(has_times=False)
    draw = lambda seed: pairs(rolling_windows(dataset, TuneSettings(seed=seed)).windows[0].future)  # noqa: E731
    assert draw(0) == draw(0)
    assert draw(0) != draw(1)


def test_user_with_two_events_keeps_one() -> None:
    dataset = block_dataset(has_times=False)
    first = dataset.events.user_rows
    rank = np.array([np.count_nonzero(first[:place] == user) for place, user in enumerate(first)])
    two = replace(dataset, events=dataset.events.where(rank < 2))
    for window in rolling_windows(two, TuneSettings(windows=2, window_share=0.3)).windows:
        assert set(window.future.user_rows) <= set(window.past.user_rows)
        assert len(window.future)


def test_windows_of_time_with_hardly_anybody_become_folds(dataset: Dataset) -> None:
    few = replace(dataset, events=dataset.events.where(dataset.events.user_rows < 10))
    assert rolling_windows(few, TuneSettings()).scheme == "folds"
    assert rolling_windows(few, TuneSettings(scheme="time")).scheme == "time"


def test_windows_of_time_without_times_are_refused() -> None:
    with pytest.raises(SettingsError, match="no times"):
        rolling_windows(block_dataset(has_times=False), TuneSettings(scheme="time"))


def test_windows_that_leave_nothing_to_learn_from_are_refused(dataset: Dataset) -> None:
    with pytest.raises(SettingsError, match="too little"):
        rolling_windows(dataset, TuneSettings(windows=5, window_share=0.2))


def test_window_without_a_known_user_is_an_error() -> None:
    dataset = block_dataset(n_users=30)
    once = np.unique(dataset.events.user_rows, return_index=True)[1]
    with pytest.raises(TrainingError, match="no user with a past"):
        rolling_windows(replace(dataset, events=dataset.events.where(np.sort(once))), TuneSettings(scheme="time"))


def test_dataset_without_test_has_nothing_else_changed(dataset: Dataset) -> None:
    seen = without_test(dataset)
    assert seen.n_items == dataset.n_items
    assert len(seen.events) == (dataset.events.splits != 2).sum()

"""Label windows never let a label into its own past."""

from __future__ import annotations

import numpy as np
import pytest

from core.dataset import Events
from tests.unit.ranking.worlds import block_dataset
from training.ranking.windows import Window, is_liked, label_windows


def windows_of(events: Events, has_times: bool = True, share: float = 0.1, count: int = 2) -> tuple[Window, ...]:
    return label_windows(events, count=count, has_times=has_times, share=share, rng=np.random.default_rng(0))


def pairs(events: Events) -> set[tuple[int, int]]:
    return set(zip(events.user_rows.tolist(), events.item_rows.tolist(), strict=True))


def test_windows_by_time_follow_their_pasts() -> None:
    earlier, later = windows_of(block_dataset().events)
    assert earlier.past.timestamps.max() < earlier.future.timestamps.min()
    assert later.past.timestamps.max() < later.future.timestamps.min()
    assert earlier.future.timestamps.max() < later.future.timestamps.min()
    assert earlier.future.timestamps.max() <= later.past.timestamps.max()


@pytest.mark.parametrize("has_times", [True, False])
def test_window_futures_are_disjoint_and_outside_their_pasts(has_times: bool) -> None:
    windows = windows_of(block_dataset().events, has_times)
    for window in windows:
        assert not pairs(window.past) & pairs(window.future)
        assert set(window.future.user_rows) <= set(window.past.user_rows)
    assert not pairs(windows[0].future) & pairs(windows[1].future)


def test_windows_hold_about_their_share_of_the_events() -> None:
    events = block_dataset().events
    for has_times in (True, False):
        for window in windows_of(events, has_times, 0.2):
            assert len(window.future) == pytest.approx(0.2 * len(events), rel=0.15)


def test_windows_fall_back_to_random_labels_when_time_has_too_few_users() -> None:
    events = block_dataset(n_users=10).events  # fewer than 20 users can never fill a window by time
    earlier, _ = windows_of(events)
    assert earlier.past.timestamps.max() > earlier.future.timestamps.min()


def test_windows_at_random_repeat_by_seed() -> None:
    events = block_dataset(with_times=False).events
    for one, two in zip(windows_of(events, False), windows_of(events, False), strict=True):
        assert np.array_equal(one.future.item_rows, two.future.item_rows)


def test_liked_is_at_or_above_the_mean_of_known_values() -> None:
    dataset = block_dataset()
    liked = is_liked(dataset, dataset.events)
    assert set(dataset.events.raw_values[liked]) == {5.0}
    assert set(dataset.events.raw_values[~liked]) == {2.0}


def test_liked_is_nothing_without_values() -> None:
    dataset = block_dataset(with_values=False)
    assert not is_liked(dataset, dataset.events).any()


@pytest.mark.parametrize("has_times", [True, False])
def test_as_many_windows_as_wanted_and_the_last_is_newest(has_times: bool) -> None:
    windows = windows_of(block_dataset().events, has_times, 0.1, count=4)
    assert len(windows) == 4
    futures = [pairs(window.future) for window in windows]
    assert not any(futures[one] & futures[two] for one in range(4) for two in range(one))
    if has_times:
        starts = [window.future.timestamps.min() for window in windows]
        assert starts == sorted(starts)


def test_windows_leave_something_to_learn_from() -> None:
    windows = windows_of(block_dataset().events, True, 0.2, count=8)
    assert len(windows) == 3
    assert len(windows[0].past) >= 0.35 * len(block_dataset().events)

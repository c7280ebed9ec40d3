"""Label windows: a past to recall from, and what the users did next.

Recall is fitted on the past alone, so its scores on the past's users carry the same bias as in serving, where the
shipped recall has also seen the history of the user that it answers. Labels never take part in any fit before them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from core.dataset import Dataset, Events

FEWEST_USERS = 20
"""A time window with fewer users who have both a past and labels says too little: labels are drawn at random then."""


@dataclass(frozen=True)
class Window:
    """One label window.

    Attributes:
        name: ``earlier`` or ``later``.
        past: Events that recall, statistics and histories may use.
        future: Events of users with a past, to be predicted; none of them is in ``past``.
    """

    name: str
    past: Events
    future: Events


def label_windows(events: Events, *, has_times: bool, share: float, rng: np.random.Generator) -> tuple[Window, Window]:
    """The two last windows of time, the earlier one first.

    Without usable times each window hides a random ``share`` of every user's events, disjoint between the windows.

    Args:
        events: Fitted events in time order.
        has_times: Whether timestamps mean anything.
        share: Share of the events in each window.
        rng: Draws the random windows.
    """
    if has_times:
        windows = _by_time(events, share)
        if all(len(np.unique(window.future.user_rows)) >= FEWEST_USERS for window in windows):
            return windows
    return _at_random(events, share, rng)


def _by_time(events: Events, share: float) -> tuple[Window, Window]:
    start, middle = np.quantile(events.timestamps, [1 - 2 * share, 1 - share])
    times = events.timestamps
    return (
        _window("earlier", events.where(times <= start), events.where((times > start) & (times <= middle))),
        _window("later", events.where(times <= middle), events.where(times > middle)),
    )


def _at_random(events: Events, share: float, rng: np.random.Generator) -> tuple[Window, Window]:
    draw = rng.random(len(events))
    earlier, later = draw < share, (draw >= share) & (draw < 2 * share)
    return (
        _window("earlier", events.where(~earlier), events.where(earlier)),
        _window("later", events.where(~later), events.where(later)),
    )


def _window(name: str, past: Events, future: Events) -> Window:
    return Window(name, past, future.where(np.isin(future.user_rows, past.user_rows)))


def is_liked(dataset: Dataset, events: Events) -> np.ndarray:
    """Which events have a value at or above the mean of all known ones, bool ``(events,)``; unknown is not liked."""
    mean = np.nanmean(dataset.events.raw_values) if dataset.has_values else np.nan
    return np.nan_to_num(events.raw_values, nan=-np.inf) >= mean

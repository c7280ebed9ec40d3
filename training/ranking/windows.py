"""Label windows: a past to recall from, and what the users did next.

Recall is fitted on the past alone, so its scores on the past's users carry the same bias as in serving, where the
shipped recall has also seen the history of the user that it answers. Labels never take part in any fit before them.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from core.dataset import Dataset, Events

LARGEST_SHARE = 0.6
"""Of the events in all windows together: the first fit needs something to learn from."""
FEWEST_USERS = 20
"""A time window with fewer users who have both a past and labels says too little: labels are drawn at random then."""


@dataclass(frozen=True)
class Window:
    """One label window.

    Attributes:
        name: For bars, such as ``1 of 4``.
        past: Events that recall, statistics and histories may use.
        future: Events of users with a past, to be predicted; none of them is in ``past``.
    """

    name: str
    past: Events
    future: Events


def label_windows(
    events: Events, *, count: int, has_times: bool, share: float, rng: np.random.Generator
) -> tuple[Window, ...]:
    """The last windows of time, oldest first; those with too few users are left out, but never the last two.

    Without usable times, or where the last two have too few users, each window hides a random ``share`` of every
    user's events, disjoint between the windows.

    Args:
        events: Fitted events in time order.
        count: Windows wanted, at least 2; fewer are made where they would hold more than 60 % of the events.
        has_times: Whether timestamps mean anything.
        share: Share of the events in each window.
        rng: Draws the random windows.
    """
    count = max(2, min(count, int(LARGEST_SHARE / share + 1e-9)))
    if has_times:
        windows = _by_time(events, count, share)
        enough = [len(np.unique(window.future.user_rows)) >= FEWEST_USERS for window in windows]
        if all(enough[-2:]):
            return tuple(window for window, kept in zip(windows, enough, strict=True) if kept)
    return _at_random(events, count, share, rng)


def _by_time(events: Events, count: int, share: float) -> tuple[Window, ...]:
    ends = np.quantile(events.timestamps, [1 - share * at for at in range(count, -1, -1)])
    times = events.timestamps
    return tuple(
        _window(_name(at, count), events.where(times <= start), events.where((times > start) & (times <= end)))
        for at, (start, end) in enumerate(itertools.pairwise(ends))
    )


def _at_random(events: Events, count: int, share: float, rng: np.random.Generator) -> tuple[Window, ...]:
    window = (rng.random(len(events)) / share).astype(np.int64)  # beyond the last: in the past of all
    return tuple(
        _window(_name(at, count), events.where(window != at), events.where(window == at)) for at in range(count)
    )


def _name(at: int, count: int) -> str:
    return f"{at + 1} of {count}"


def _window(name: str, past: Events, future: Events) -> Window:
    return Window(name, past, future.where(np.isin(future.user_rows, past.user_rows)))


def is_liked(dataset: Dataset, events: Events) -> np.ndarray:
    """Which events have a value at or above the mean of all known ones, bool ``(events,)``; unknown is not liked."""
    mean = np.nanmean(dataset.events.raw_values) if dataset.has_values else np.nan
    return np.nan_to_num(events.raw_values, nan=-np.inf) >= mean

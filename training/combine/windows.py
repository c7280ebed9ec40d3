"""Successive held-out windows at the end of the events: what weights are learned on."""

from __future__ import annotations

import numpy as np

from core.dataset import Events
from training.ranking.windows import FEWEST_USERS, Window


def successive_windows(
    events: Events, *, has_times: bool, share: float, count: int, rng: np.random.Generator
) -> tuple[Window, ...]:
    """The ``count`` last windows, oldest first; each one's past is everything before it.

    Without usable times each window hides a random ``share`` of the events, disjoint between the windows.

    Args:
        events: Fitted events in time order.
        has_times: Whether timestamps mean anything.
        share: Share of the events in each window.
        count: How many; fewer where they would leave less than half of the events as the oldest past.
        rng: Draws the random windows.
    """
    count = max(1, min(count, int(0.5 / share)))
    if has_times:
        edges = np.quantile(events.timestamps, [1 - (count - at) * share for at in range(count)])
        windows = _by_time(events, edges)
        if all(len(np.unique(window.future.user_rows)) >= FEWEST_USERS for window in windows):
            return windows
    draw = rng.random(len(events))
    hidden = [(draw >= at * share) & (draw < (at + 1) * share) for at in range(count)]
    return tuple(_window(str(at), events.where(~part), events.where(part)) for at, part in enumerate(hidden))


def _by_time(events: Events, edges: np.ndarray) -> tuple[Window, ...]:
    times = events.timestamps
    ends = [*edges[1:], np.inf]
    return tuple(
        _window(str(at), events.where(times <= start), events.where((times > start) & (times <= end)))
        for at, (start, end) in enumerate(zip(edges, ends, strict=True))
    )


def _window(name: str, past: Events, future: Events) -> Window:
    return Window(name, past, future.where(np.isin(future.user_rows, past.user_rows)))

"""What trials are measured on: windows of time inside train and valid, each predicted from what was before it."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import numpy as np

from core.dataset import Dataset, Events
from core.errors import SettingsError, TrainingError
from core.sections import TuneSettings
from training.ranking.windows import FEWEST_USERS, Window

TUNED_ON = ("train", "valid")
"""Splits that a search may see. Never test, whatever ``train.fit`` says."""


@dataclass(frozen=True)
class Rolling:
    """The windows of a search.

    Attributes:
        scheme: time or folds.
        windows: Earliest first; a window's past never holds an event of its future or later.
    """

    scheme: str
    windows: tuple[Window, ...]


def without_test(dataset: Dataset) -> Dataset:
    """The dataset as a search may see it: only events of train and valid exist."""
    return replace(dataset, events=dataset.events.of_splits(TUNED_ON))


def rolling_windows(dataset: Dataset, settings: TuneSettings) -> Rolling:
    """Windows over the train and valid events (rolling origin, Tashman 2000), or folds where time says nothing.

    The last ``windows`` stretches of ``window_share`` of the events each are predicted from everything before them.
    Folds hide disjoint shares of each user's events instead.

    Args:
        dataset: Its test events are never looked at.
        settings: Scheme, number and share of the windows, and the seed of the folds.

    Raises:
        SettingsError: Windows that leave nothing to learn from, or windows of time in data without times.
        TrainingError: A window without a user who has a past.
    """
    if settings.windows * settings.window_share > 0.9 + 1e-9:
        raise SettingsError(
            "the windows leave too little to learn from",
            where="tune.windows, tune.window_share",
            expected="windows x window_share of at most 0.9",
            found=f"{settings.windows} x {settings.window_share}",
        )
    if settings.scheme == "time" and not dataset.has_times:
        raise SettingsError("the data has no times", where="tune.scheme", expected="folds or auto", found="time")
    events = dataset.events.of_splits(TUNED_ON)
    found = None
    if settings.scheme != "folds" and dataset.has_times:
        found = Rolling("time", _by_time(events, settings.windows, settings.window_share))
        if settings.scheme == "auto" and min(len(_users(window)) for window in found.windows) < FEWEST_USERS:
            found = None
    if found is None:
        rng = np.random.default_rng(settings.seed)
        found = Rolling("folds", _by_user(events, settings.windows, settings.window_share, rng))
    empty = [window.name for window in found.windows if len(window.future) == 0]
    if empty:
        raise TrainingError(
            "a window has no user with a past",
            where=", ".join(empty),
            expected="users with events before and in each window",
            next_step="use fewer or larger windows (tune.windows, tune.window_share), or tune.scheme = folds",
        )
    return found


def _by_time(events: Events, count: int, share: float) -> tuple[Window, ...]:
    times = events.timestamps
    cuts = np.quantile(times, [1 - share * (count - place) for place in range(count + 1)]) if len(times) else []
    return tuple(
        _window(f"window {place + 1}", events.where(times <= start), events.where((times > start) & (times <= end)))
        for place, (start, end) in enumerate(itertools.pairwise(cuts))
    )


def _by_user(events: Events, count: int, share: float, rng: np.random.Generator) -> tuple[Window, ...]:
    """Each fold hides ``share`` of every user's events, at least one of those who have two or more."""
    order = np.lexsort((rng.random(len(events)), events.user_rows))
    per_user = np.bincount(events.user_rows)
    starts = np.concatenate([[0], np.cumsum(per_user)])
    rank = np.empty(len(events), dtype=np.int64)
    rank[order] = np.arange(len(events)) - starts[events.user_rows[order]]
    hidden = np.where(per_user > 1, np.maximum(1, np.floor(share * per_user)), 0).astype(np.int64)[events.user_rows]
    fold = np.where(hidden > 0, rank // np.maximum(hidden, 1), count)
    return tuple(
        _window(f"fold {place + 1}", events.where(fold != place), events.where(fold == place)) for place in range(count)
    )


def _window(name: str, past: Events, future: Events) -> Window:
    return Window(name, past, future.where(np.isin(future.user_rows, past.user_rows)))


def _users(window: Window) -> np.ndarray:
    return np.unique(window.future.user_rows)

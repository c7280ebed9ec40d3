"""Weighted interactions of events, both ways, in passes over blocks: events and result may lie in files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numba
import numpy as np

from core.columns import blocks, counts_of, release, scratch
from core.dataset import Events
from core.histories import SECONDS_PER_DAY
from core.sections import MfSettings
from training.models.event_weights import EventWeighting
from training.models.mf_model import length_factor
from training.models.mf_problem import Interactions, offsets


@dataclass(frozen=True)
class Weighted:
    """What iALS learns from.

    Attributes:
        by_user: Items of each user, newest first.
        by_item: Users of each item, ascending.
        weighting: How events were weighted: mean 1, before the lengths of histories count.
        mean_length: Mean number of events of a user who has any.
    """

    by_user: Interactions
    by_item: Interactions
    weighting: EventWeighting
    mean_length: float


def weighted_interactions(
    events: Events, n_users: int, n_items: int, settings: MfSettings, kinds: np.ndarray, folder: Path | None = None
) -> Weighted:
    """Weighs events and groups them by user and by item.

    Args:
        events: Each (user, item) pair once.
        n_users: U.
        n_items: I.
        settings: How events are weighted.
        kinds: Weight of each kind by code.
        folder: Takes the result where it may not fit memory; None keeps it in memory.
    """
    if not _in_time_order(events.timestamps):
        events = events.where(np.argsort(events.timestamps, kind="stable"))
    users = _Users.of(events, n_users)
    starts = offsets(users.lengths)
    columns, weights = scratch(folder, len(events), np.int32), scratch(folder, len(events), np.float32)
    _fill(columns, events, starts, lambda part: part.item_rows)
    release(columns)
    weighting = EventWeighting.from_settings(settings, kinds)
    _fill(weights, events, starts, lambda part: users.weights(part, weighting))
    weighting = replace(weighting, scale=weighting.scale / float(weights.mean(dtype=np.float64)))
    mean_length = float(users.lengths[users.lengths > 0].mean())
    factors = length_factor(np.maximum(users.lengths, 1), mean_length, settings.user_power).astype(np.float32)
    _fill(weights, events, starts, lambda part: users.weights(part, weighting) * factors[part.user_rows])
    by_user, by_item = Interactions.both_ways(starts, columns, weights, n_items, folder)
    return Weighted(by_user, by_item, weighting, mean_length)


@dataclass(frozen=True)
class _Users:
    """What the weight of an event needs to know of its user.

    Attributes:
        lengths: Events of each user, int64 ``(U,)``.
        oldest: Time of the first one, float64 ``(U,)``.
        newest: Time of the last one.
    """

    lengths: np.ndarray
    oldest: np.ndarray
    newest: np.ndarray

    @classmethod
    def of(cls, events: Events, n_users: int) -> _Users:
        """Reads it off events in time order."""
        oldest, newest = np.zeros(n_users), np.zeros(n_users)
        for part in blocks(events.user_rows, events.timestamps):
            newest[events.user_rows[part]] = events.timestamps[part]  # of a user's several times the last one stays
        for part in blocks(events.user_rows, events.timestamps, backwards=True):
            oldest[events.user_rows[part][::-1]] = events.timestamps[part][::-1]
        return cls(counts_of(events.user_rows, n_users), oldest, newest)

    def weights(self, events: Events, weighting: EventWeighting) -> np.ndarray:
        """Weights float32 ``(events,)``, as :meth:`EventWeighting.of_histories` gives them."""
        ages = (self.newest[events.user_rows] - events.timestamps) / SECONDS_PER_DAY
        since_first = (events.timestamps - self.oldest[events.user_rows]) / SECONDS_PER_DAY
        return weighting.of_arrays(ages, events.values, since_first, events.kinds)


def _in_time_order(timestamps: np.ndarray) -> bool:
    newest = -np.inf
    for part in blocks(timestamps):
        block = timestamps[part]
        if block[0] < newest or (block[1:] < block[:-1]).any():
            return False
        newest = float(block[-1])
    return True


def _fill(into: np.ndarray, events: Events, starts: np.ndarray, cells: Callable[[Events], np.ndarray]) -> None:
    """Puts a number of each event where the event belongs, by user and newest first.

    Args:
        into: ``(events,)``, to be filled.
        events: In time order.
        starts: Offsets ``(U + 1,)`` of the users.
        cells: Gives the numbers of a block of events.
    """
    free = starts[:-1].astype(np.int64)
    columns = (events.user_rows, events.item_rows, events.timestamps, events.values, events.kinds)
    for part in blocks(*columns, backwards=True):
        block = events.where(part)
        _put_backwards(np.array(block.user_rows), np.array(cells(block), dtype=into.dtype), free, np.asarray(into))


@numba.njit(cache=True)
def _put_backwards(rows, cells, free, into):  # type: ignore[no-untyped-def]
    for event in range(len(rows) - 1, -1, -1):
        into[free[rows[event]]] = cells[event]
        free[rows[event]] += 1

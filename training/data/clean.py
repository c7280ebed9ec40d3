"""Which events stay: split first, then one event per (user, item), then the k-core.

Order and rules, so that what a model may have seen is never what it is asked for:

1. Splits come from all well-formed events, repeats included: the boundaries are quantiles of the raw times.
2. A pair (user, item) belongs to the *first* split it occurs in. From there on it is seen, so a repeat in a later
   split would ask for something that must not be recommended.
3. Of the pair's events in that split the one whose kind counts most stays (``events.kind_weights``; all kinds count
   alike by default), of several such the newest, with its value and time. Not the newest of all: that would show a
   model the value and the time of an event beyond its split.
4. The k-core counts the events that are left.

A scorer that reads the raw file, masks what occurs in train or valid and drops it from the truth of test comes to the
same truth, with the k-core off: a pair is in the test split here exactly if all of its events are test events. Only a
scorer that masks train alone differs, and only in pairs that occur in valid and again in test: for it they are truth.
"""

from __future__ import annotations

import numpy as np


def time_boundaries(timestamps: np.ndarray, quantiles: tuple[float, float]) -> tuple[float, float]:
    """Times that end train and valid: quantiles with linear interpolation (Hyndman and Fan 1996, type 7).

    Args:
        timestamps: float64 ``(events,)``, at least one.
        quantiles: Shares of events, for example (0.8, 0.9).
    """
    return interpolate(np.partition(timestamps, _around(len(timestamps), quantiles)), quantiles)


def interpolate(ordered: np.ndarray, quantiles: tuple[float, float]) -> tuple[float, float]:
    """The same of ascending times ``(events,)``."""
    places = [share * (len(ordered) - 1) for share in quantiles]
    lows = [int(place) for place in places]
    highs = [min(low + 1, len(ordered) - 1) for low in lows]
    # Written out, since numpy.quantile interpolates from the other end above one half and can differ in the last bit.
    ends = [
        float(ordered[low] + (ordered[high] - ordered[low]) * (place - low))
        for place, low, high in zip(places, lows, highs, strict=True)
    ]
    return ends[0], ends[1]


def _around(count: int, quantiles: tuple[float, float]) -> list[int]:
    """Places of ``count`` ordered times that decide the quantiles."""
    lows = {int(share * (count - 1)) for share in quantiles}
    return sorted(lows | {min(low + 1, count - 1) for low in lows})


def split_by_time(timestamps: np.ndarray, boundaries: tuple[float, float]) -> np.ndarray:
    """uint8 ``(events,)``: train up to the first boundary, valid up to the second, both inclusive, then test."""
    return np.searchsorted(np.array(boundaries), timestamps, side="left").astype(np.uint8)


def first_split_newest(pairs: np.ndarray, splits: np.ndarray, strengths: np.ndarray | None = None) -> np.ndarray:
    """Places of the events that stay when each pair does so once, ascending.

    Args:
        pairs: int64 ``(events,)``, a number per (user, item), events in time order.
        splits: uint8 ``(events,)``.
        strengths: float ``(events,)``, how much each event counts; all alike when None.

    Returns:
        int64: for each pair the last of the strongest events of its lowest split.
    """
    keys = pairs * 4 + splits  # 4 > number of splits
    order = np.argsort(keys, kind="stable") if strengths is None else np.lexsort((strengths, keys))
    keys = keys[order]
    ends = np.flatnonzero(np.append(keys[1:] != keys[:-1], True))  # strongest, then newest of each (pair, split)
    owners = keys[ends] // 4
    first = np.append(True, owners[1:] != owners[:-1])
    return np.sort(order[ends[first]])


def k_core(users: np.ndarray, items: np.ndarray, min_user_events: int, min_item_events: int) -> np.ndarray:
    """bool ``(events,)``: the largest set in which each user and each item keeps the least number of events.

    Args:
        users: int ``(events,)``.
        items: int ``(events,)``.
        min_user_events: Least events of a user.
        min_item_events: Least events of an item.
    """
    alive = np.ones(len(users), dtype=bool)
    while alive.any():
        user_counts = np.bincount(users[alive], minlength=int(users.max()) + 1)
        item_counts = np.bincount(items[alive], minlength=int(items.max()) + 1)
        stays = alive & (user_counts[users] >= min_user_events) & (item_counts[items] >= min_item_events)
        if stays.sum() == alive.sum():
            break
        alive = stays
    return alive

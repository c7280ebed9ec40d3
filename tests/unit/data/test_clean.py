"""Split, one event per pair and k-core, against walks in plain Python."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.dataset import SPLITS
from core.sections import DataSettings
from training.data.clean import first_split_newest, k_core, split_by_time, time_boundaries
from training.data.raw import IdColumn, RawEvents
from training.data.selection import select_events

Event = tuple[int, int, float]
ItemsOfUser = dict[int, set[int]]

events_lists = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 5), st.integers(0, 30).map(float)), min_size=1, max_size=60
)


def raw_of(events: list[Event]) -> RawEvents:
    users, items, times = (np.array(column) for column in zip(*events, strict=True))
    return RawEvents(
        IdColumn(users.astype(np.int32), pa.array([f"u{n}" for n in range(5)])),
        IdColumn(items.astype(np.int32), pa.array([f"i{n}" for n in range(6)])),
        times.astype(np.float64),
        np.arange(len(events), dtype=np.float32),
    )


def outside_scorer(events: list[Event]) -> tuple[ItemsOfUser, ItemsOfUser]:
    """Seen items (train and valid) and test truth per user, from raw events, as a scorer outside would take them."""
    times = sorted(when for _, _, when in events)

    def quantile(share: float) -> float:
        place = share * (len(times) - 1)
        low = int(place)
        high = min(low + 1, len(times) - 1)
        return times[low] + (times[high] - times[low]) * (place - low)

    end = quantile(0.9)
    seen: ItemsOfUser = defaultdict(set)
    later: ItemsOfUser = defaultdict(set)
    for user, item, when in events:
        (seen if when <= end else later)[user].add(item)
    truth = {user: items - seen.get(user, set()) for user, items in later.items()}
    return dict(seen), {user: items for user, items in truth.items() if items}


@given(events_lists)
def test_seen_and_truth_equal_those_of_a_scorer_of_the_raw_file(events: list[Event]) -> None:
    raw = raw_of(events)
    selection = select_events(raw, DataSettings())
    seen: ItemsOfUser = defaultdict(set)
    truth: ItemsOfUser = defaultdict(set)
    for place, split in zip(selection.places, selection.splits, strict=True):
        (truth if SPLITS[split] == "test" else seen)[int(raw.users.codes[place])].add(int(raw.items.codes[place]))
    assert (dict(seen), dict(truth)) == outside_scorer(events)


@given(events_lists)
def test_selection_holds_each_pair_once_in_time_order(events: list[Event]) -> None:
    raw = raw_of(events)
    assert raw.timestamps is not None
    places = select_events(raw, DataSettings()).places
    pairs = [events[place][:2] for place in places]
    assert len(pairs) == len(set(pairs)) == len({event[:2] for event in events})
    assert (np.diff(raw.timestamps[places]) >= 0).all()


@given(events_lists)
def test_kept_event_is_the_newest_of_the_first_split(events: list[Event]) -> None:
    raw = raw_of(events)
    assert raw.timestamps is not None
    ends = time_boundaries(raw.timestamps, (0.8, 0.9))
    split = [0 if when <= ends[0] else 1 if when <= ends[1] else 2 for *_, when in events]
    best: dict[tuple[int, int], tuple[int, float, int]] = {}
    for place, (user, item, when) in enumerate(events):
        found = best.get((user, item))
        if found is None or split[place] < found[0] or (split[place] == found[0] and when >= found[1]):
            best[user, item] = (split[place], when, place)
    selection = select_events(raw, DataSettings())
    assert sorted(selection.places) == sorted(place for *_, place in best.values())


@given(st.lists(st.floats(0, 2e9), min_size=1, max_size=50))
def test_time_boundaries_equal_linear_quantiles(times: list[float]) -> None:
    ends = time_boundaries(np.array(times), (0.8, 0.9))
    assert ends == pytest.approx(tuple(np.quantile(times, [0.8, 0.9])), rel=1e-12, abs=1e-300)


def test_split_by_time_includes_its_boundaries() -> None:
    splits = split_by_time(np.array([0.0, 8.0, 8.1, 9.0, 9.1]), (8.0, 9.0))
    assert splits.tolist() == [0, 0, 1, 1, 2]
    assert splits.dtype == np.uint8


def test_first_split_newest_keeps_last_of_lowest_split() -> None:
    pairs = np.array([7, 7, 3, 7, 3])
    splits = np.array([0, 0, 1, 2, 2], dtype=np.uint8)
    assert first_split_newest(pairs, splits).tolist() == [1, 2]


@given(
    st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), unique=True, min_size=1, max_size=40),
    st.integers(1, 4),
    st.integers(1, 4),
)
def test_k_core_equals_dropping_one_by_one(pairs: list[tuple[int, int]], least_user: int, least_item: int) -> None:
    left = set(pairs)
    while True:
        users, items = Counter(u for u, _ in left), Counter(i for _, i in left)
        gone = [p for p in left if users[p[0]] < least_user or items[p[1]] < least_item]
        if not gone:
            break
        left.discard(gone[0])
    alive = k_core(np.array([u for u, _ in pairs]), np.array([i for _, i in pairs]), least_user, least_item)
    assert {pair for pair, stays in zip(pairs, alive, strict=True) if stays} == left

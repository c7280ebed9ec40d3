"""Histories against slow, obvious walks over plain Python lists."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import histories as module
from core.histories import EMPTY_HISTORY, Histories, bucket, pad

N_USERS, N_ITEMS = 5, 9
Event = tuple[int, int, float, float]

events_lists = st.lists(
    st.tuples(
        st.integers(0, N_USERS - 1),
        st.integers(0, N_ITEMS - 1),
        st.integers(0, 5).map(lambda day: day * 43_200.0),
        st.integers(-2, 2).map(float),
    ),
    max_size=50,
)
users_lists = st.lists(st.integers(0, N_USERS - 1), max_size=8)


def histories_of(events: list[Event]) -> Histories:
    users, items, times, values = (np.array([event[place] for event in events]) for place in range(4))
    return Histories.from_events(users.astype(np.int32), items.astype(np.int32), times, values, N_USERS)


def oracle(events: list[Event], user: int) -> list[Event]:
    """Newest first; of equal times the later event of the input first."""
    own = [(place, event) for place, event in enumerate(events) if event[0] == user]
    return [event for _, event in sorted(own, key=lambda pair: (-pair[1][2], -pair[0]))]


def as_tuples(histories: Histories, user: int) -> list[tuple[int, float, float]]:
    one = histories.of(user)
    return list(zip(one.item_rows.tolist(), one.timestamps.tolist(), one.values.tolist(), strict=True))


@given(events_lists)
def test_from_events_equals_a_sort_per_user(events: list[Event]) -> None:
    histories = histories_of(events)
    assert len(histories) == N_USERS
    for user in range(N_USERS):
        assert as_tuples(histories, user) == [event[1:] for event in oracle(events, user)]
    assert [len(one) for one in histories] == histories.lengths.tolist()


@given(events_lists, users_lists)
def test_select_gives_the_asked_users_in_their_order(events: list[Event], users: list[int]) -> None:
    histories = histories_of(events)
    chosen = histories.select(np.array(users, dtype=np.int64))
    assert len(chosen) == len(users)
    for place, user in enumerate(users):
        assert as_tuples(chosen, place) == as_tuples(histories, user)


@given(events_lists, users_lists, st.data())
def test_pad_equals_a_walk_over_rows(events: list[Event], users: list[int], data: st.DataObject) -> None:
    histories = histories_of(events).select(np.array(users, dtype=np.int64))
    extra = [data.draw(st.lists(st.integers(0, N_ITEMS - 1), max_size=20)) for _ in users]
    padded = pad(histories, N_ITEMS, [np.array(rows, dtype=np.int64) for rows in extra])
    width = padded.rows.shape[1]
    assert padded.ages.shape == padded.values.shape == padded.rows.shape == (len(users), width)
    assert width == bucket(int(histories.lengths.max(initial=0)))
    for place, user in enumerate(users):
        own = oracle(events, user)
        gap = width - len(own)
        newest = own[0][2] if own else 0.0
        assert padded.rows[place].tolist() == [event[1] for event in own] + [N_ITEMS] * gap
        assert padded.ages[place].tolist() == [(newest - event[2]) / 86_400 for event in own] + [0.0] * gap
        assert padded.values[place].tolist() == [event[3] for event in own] + [0.0] * gap
        seen = [event[1] for event in own] + extra[place]
        assert padded.exclude[place].tolist() == seen + [N_ITEMS] * (padded.exclude.shape[1] - len(seen))


def test_pad_keeps_the_newest_events_but_excludes_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LONGEST_HISTORY", 16)
    histories = histories_of([(0, item % N_ITEMS, item * 86_400.0, 0.0) for item in range(40)])
    padded = pad(histories.select(np.array([0, 1])), N_ITEMS)
    assert padded.rows.shape == (2, 16)
    assert padded.rows[0].tolist() == [item % N_ITEMS for item in range(39, 23, -1)]
    assert padded.ages[0].tolist() == list(range(16))
    assert padded.exclude.shape == (2, 64)
    assert (padded.exclude[0] < N_ITEMS).sum() == 40
    assert (padded.rows[1] == N_ITEMS).all()


def test_pad_dtypes_are_those_of_the_served_tensors() -> None:
    padded = pad(histories_of([(0, 1, 5.0, 1.0)]), N_ITEMS)
    assert (padded.rows.dtype, padded.exclude.dtype) == (np.int64, np.int64)
    assert (padded.ages.dtype, padded.values.dtype) == (np.float32, np.float32)


def test_pad_of_no_users_has_one_bucket_of_no_rows() -> None:
    padded = pad(histories_of([]).select(np.zeros(0, dtype=np.int64)), N_ITEMS)
    assert padded.rows.shape == padded.exclude.shape == (0, 16)


@given(st.integers(0, 5_000))
def test_bucket_is_the_smallest_power_of_two_that_holds_the_length(length: int) -> None:
    size = bucket(length)
    assert size >= max(16, length)
    assert size == 16 or size // 2 < length
    assert size & (size - 1) == 0


def test_empty_history_has_the_dtypes_of_any_other() -> None:
    one = histories_of([(0, 1, 5.0, 1.0)]).of(0)
    for name in ("item_rows", "timestamps", "values"):
        assert getattr(EMPTY_HISTORY, name).dtype == getattr(one, name).dtype
    assert len(EMPTY_HISTORY) == 0

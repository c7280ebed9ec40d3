"""Text to numbers and times, against Python's own parsers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.data.cells import RowCheck, read_numbers

offsets = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@settings(max_examples=30)
@given(st.lists(st.datetimes(datetime(1970, 1, 3), datetime(2200, 1, 1), timezones=offsets), min_size=1, max_size=20))
def test_iso_times_equal_those_of_datetime(times: list[datetime]) -> None:
    found = read_numbers(pa.chunked_array([[time.isoformat() for time in times]]), times=True)
    assert found is not None
    np.testing.assert_allclose(found.values, [time.timestamp() for time in times], rtol=0, atol=1e-5)


@settings(max_examples=30)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=20))
def test_numbers_equal_those_of_float(numbers: list[float]) -> None:
    found = read_numbers(pa.chunked_array([[repr(number) for number in numbers]]))
    assert found is not None
    assert found.values.tolist() == numbers


def test_time_without_offset_is_utc_and_chunks_stay_in_order() -> None:
    cells = pa.chunked_array([["2020-01-01T00:00:00", "7"], [], ["x", "", None, "2020-01-01"]], pa.string())
    found = read_numbers(cells, times=True)
    assert found is not None
    newyear = datetime(2020, 1, 1, tzinfo=UTC).timestamp()
    np.testing.assert_equal(found.values, [newyear, 7, np.nan, np.nan, np.nan, newyear])
    assert found.missing.tolist() == [False, False, False, True, True, False]
    assert found.unusable.tolist() == [False, False, True, False, False, False]


@pytest.mark.parametrize("text", ["epoch", "now", "infinity", "2020-01-01-05", "2020-02-30", "2020-01-01T25:00", "1 2"])
def test_words_and_impossible_times_are_unusable(text: str) -> None:
    found = read_numbers(pa.chunked_array([[text]]), times=True)
    assert found is not None
    assert found.unusable.all()


def test_times_are_no_numbers_unless_asked_for() -> None:
    assert read_numbers(pa.chunked_array([pa.array([1], pa.timestamp("s"))])) is None
    found = read_numbers(pa.chunked_array([["2020-01-01"]]))
    assert found is not None
    assert found.unusable.all()


def test_row_is_counted_once_under_its_first_reason_and_lowest_row_is_first() -> None:
    check = RowCheck(np.zeros(4, dtype=bool))
    check.flag(np.array([False, False, True, True]), "one", "a", "x", str)
    check.flag(np.array([False, True, True, False]), "two", "b", "y", str)
    check.flag(np.zeros(4, dtype=bool), "three", "c", "z", str)
    assert check.reasons == {"one": 2, "two": 1}
    assert check.bad.tolist() == [False, True, True, True]
    assert check.first is not None
    assert (check.first.row, check.first.column) == (1, "b")

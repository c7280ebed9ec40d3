"""A table of events, checked cell by cell, as typed columns."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from core.dataset import SPLITS
from core.errors import DataError
from training.data.cells import RowCheck, is_text, read_numbers
from training.data.files import RawTable, shorten, unclosed_quote
from training.data.raw import IdColumn, RawEvents, TableReport
from training.data.rows import Account, as_dictionary, read_ids, require_columns

EVENT_COLUMNS = ("user_id", "item_id", "timestamp", "value", "event", "split")
TEXT_COLUMNS = ("user_id", "item_id", "event", "split")
"""Columns of events with few distinct texts."""

IN_1990 = 631_152_000
"""Times in milliseconds are suspected where a thousandth of them lies between this and tomorrow."""
CLOCK_SKEW_SECONDS = 86_400
"""Events may lie this far in the future: clocks of clients are wrong."""


def parse_events(table: RawTable, *, now: datetime, max_bad_share: float) -> tuple[RawEvents, TableReport]:
    """Checks and types a table of events.

    Args:
        table: As read.
        now: Later events, by more than a day, are bad.
        max_bad_share: Rows that may be bad; they are left out and counted.

    Raises:
        DataError: A required column is missing or of a wrong type, an id holds NUL, a split name is unknown, or too
            many rows are bad.
    """
    require_event_columns(table.name, table.columns.column_names)
    account = Account()
    events = check_events(table, now, account)
    return events, report_events(table.name, table.columns.column_names, account, max_bad_share)


def require_event_columns(name: str, columns: Sequence[str]) -> None:
    """Raises DataError where a table lacks a column that events need."""
    wanted = ["user_id", "item_id"] + ([] if "split" in columns else ["timestamp"])
    require_columns(name, columns, wanted, "a split column with train, valid and test can stand for timestamp")


def check_events(table: RawTable, now: datetime, account: Account) -> RawEvents:
    """The good rows of a table or a part of one; bad ones are put to the account."""
    names = table.columns.column_names
    check = RowCheck(np.zeros(table.columns.num_rows, dtype=bool))
    users = read_ids(table, "user_id", check)
    items = read_ids(table, "item_id", check)
    timestamps = _timestamps(table, check, now) if "timestamp" in names else None
    values = _values(table, check) if "value" in names else None
    splits = _splits(table) if "split" in names else None
    kinds = _kinds(table) if "event" in names else None
    account.add(table, check)
    good = ~check.bad
    return RawEvents(
        IdColumn(users.codes[good], users.ids),
        IdColumn(items.codes[good], items.ids),
        None if timestamps is None else timestamps[good],
        None if values is None else values[good].astype(np.float32),
        None if splits is None else splits[good],
        None if kinds is None else kinds.filter(pa.array(good)),
    )


def report_events(name: str, columns: Sequence[str], account: Account, max_bad_share: float) -> TableReport:
    """What reading a table of events found.

    Raises:
        DataError: Too many rows are bad, or all of them.
    """
    reasons, first = account.settle(max_bad_share)
    if sum(reasons.values()) == account.rows_read:
        raise DataError("no usable event", where=name, found=f"{account.rows_read:,} rows, all bad; {first}")
    ignored = tuple(column for column in columns if column not in EVENT_COLUMNS)
    return TableReport(name, account.rows_read, reasons, first, ignored)


def _timestamps(table: RawTable, check: RowCheck, now: datetime) -> np.ndarray:
    column = table.columns["timestamp"]
    parsed = read_numbers(column, times=True)
    expected = "seconds since 1970 or ISO-8601 (2001-02-03T04:05:06Z)"
    if parsed is None:
        raise DataError(
            "timestamp has a wrong type", where=table.name, expected="numbers, times or text", found=str(column.type)
        )
    _refuse_long_cell(table, column, parsed.unusable)
    found = lambda row: shorten(column[row].as_py())  # noqa: E731
    latest = now.timestamp() + CLOCK_SKEW_SECONDS
    check.flag(parsed.missing, "empty timestamp", "timestamp", expected, found)
    check.flag(parsed.unusable, "unreadable timestamp", "timestamp", expected, found)
    with np.errstate(invalid="ignore"):
        check.flag(parsed.values < 0, "timestamp before 1970", "timestamp", "0 or more seconds", found)
        check.flag(
            parsed.values > latest,
            "timestamp in the future",
            "timestamp",
            f"at most {latest:.0f} seconds ({datetime.fromtimestamp(latest, UTC):%Y-%m-%d}, tomorrow)",
            lambda row: found(row) + (" (milliseconds?)" if IN_1990 <= parsed.values[row] / 1000 <= latest else ""),
        )
    return parsed.values


def _values(table: RawTable, check: RowCheck) -> np.ndarray:
    column = table.columns["value"]
    parsed = read_numbers(column)
    if parsed is None:
        raise DataError("value has a wrong type", where=table.name, expected="numbers or text", found=str(column.type))
    with np.errstate(over="ignore"):
        unusable = ~parsed.missing & ~np.isfinite(parsed.values.astype(np.float32))
    _refuse_long_cell(table, column, unusable)
    check.flag(
        unusable, "unreadable value", "value", "a finite number or nothing", lambda row: shorten(column[row].as_py())
    )
    return parsed.values


def _splits(table: RawTable) -> np.ndarray:
    column = table.columns["split"]
    encoded = as_dictionary(column) if is_text(column.type) else None
    names = encoded.dictionary.to_pylist() if encoded is not None else []
    codes = encoded.indices.to_numpy(zero_copy_only=False) if encoded is not None else np.zeros(len(column))
    strange = [place for place, name in enumerate(names) if name not in SPLITS]
    if encoded is None or strange or encoded.null_count:
        row = int(np.flatnonzero(np.isin(codes, strange) | ~np.isfinite(codes))[0]) if encoded is not None else 0
        raise DataError(
            "unknown split",
            where=f"{table.place(table.file_row(row))}, column split",
            expected=" | ".join(SPLITS),
            found=shorten(column[row].as_py()),
        )
    return np.array([SPLITS.index(name) for name in names], dtype=np.uint8)[codes]


def _kinds(table: RawTable) -> pa.DictionaryArray:
    column = table.columns["event"]
    if not is_text(column.type):
        raise DataError("event has a wrong type", where=table.name, expected="text", found=str(column.type))
    return as_dictionary(column)


def _refuse_long_cell(table: RawTable, column: pa.ChunkedArray, unusable: np.ndarray) -> None:
    """A number that runs over several lines is a quote that swallowed the rows behind it."""
    if not is_text(column.type):
        return
    rows = np.flatnonzero(unusable)
    broken = pc.match_substring(column.take(pa.array(rows)).cast(pa.string()), "\n").to_numpy()
    if broken.any():
        row = int(rows[np.flatnonzero(broken)[0]])
        raise unclosed_quote(table, table.file_row(row), column[row].as_py())

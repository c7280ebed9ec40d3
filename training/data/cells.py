"""Cells to numbers, a column at a time, and the account of rows that cannot be used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

NUMBER = "select try_cast(cell as double) as number from cells"
ISO_8601 = r"(\d{4}-\d\d-\d\d)(?:([T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?)(?:Z|([+-]\d\d)(?::?(\d\d))?)?)?"
"""Date, time of day, hours and minutes of the offset. Without an offset the time is UTC."""
ISO_SECONDS = f"""
    select epoch(try_cast(iso.date || iso.clock as timestamp))
        - 3600 * coalesce(try_cast(iso.hours as integer), 0)
        - 60 * coalesce(try_cast(iso.minutes as integer), 0) * if(iso.hours like '-%', -1, 1) as number
    from (select regexp_extract(cell, '^{ISO_8601}$', ['date', 'clock', 'hours', 'minutes']) as iso from cells)
"""
"""DuckDB's own cast drops offsets (it needs the ICU extension for them) and takes words such as ``epoch``."""


@dataclass(frozen=True)
class Numbers:
    """A column as numbers.

    Attributes:
        values: float64 ``(rows,)``, NaN or infinite where a cell is no finite number.
        missing: bool ``(rows,)``, empty cells.
    """

    values: np.ndarray
    missing: np.ndarray

    @property
    def unusable(self) -> np.ndarray:
        """bool ``(rows,)``: something is there, but no finite number."""
        return ~self.missing & ~np.isfinite(self.values)


def is_text(type_: pa.DataType) -> bool:
    """Whether a column holds text, dictionary-encoded or not."""
    inner = type_.value_type if pa.types.is_dictionary(type_) else type_
    return bool(pa.types.is_string(inner) or pa.types.is_large_string(inner))


def is_time(type_: pa.DataType) -> bool:
    """Whether a column holds dates or times."""
    return bool(pa.types.is_timestamp(type_) or pa.types.is_date(type_))


def is_number(type_: pa.DataType) -> bool:
    """Whether a column holds numbers."""
    return bool(pa.types.is_integer(type_) or pa.types.is_floating(type_) or pa.types.is_decimal(type_))


def read_numbers(column: pa.ChunkedArray, *, times: bool = False) -> Numbers | None:
    """Numbers of a column of text, numbers or (with ``times``) dates; None for a column of another type.

    Args:
        column: Cells; text is parsed chunk by chunk.
        times: Read ISO-8601 text and date columns as seconds since the epoch.
    """
    if is_text(column.type):
        return _from_text(column.cast(pa.string()), times)
    if times and is_time(column.type):
        # Epoch microseconds; a column with a time zone is UTC inside.
        column = column.cast(pa.timestamp("us", getattr(column.type, "tz", None))).cast(pa.int64())
        return Numbers(_floats(column) / 1e6, _nulls(column))
    if is_number(column.type):
        return Numbers(_floats(column), _nulls(column))
    return None


def _from_text(column: pa.ChunkedArray, times: bool) -> Numbers:
    values = np.full(len(column), np.nan)
    missing = np.zeros(len(column), dtype=bool)
    at = 0
    with duckdb.connect(config={"threads": 1}) as connection:  # one thread: rows stay in order
        for chunk in column.chunks:
            part = slice(at, at + len(chunk))
            at += len(chunk)
            missing[part] = pc.fill_null(pc.equal(chunk, ""), True).to_numpy(zero_copy_only=False)
            found = _query(connection, NUMBER, chunk)
            left = np.flatnonzero(np.isnan(found) & ~missing[part])
            if times and len(left):
                found[left] = _query(connection, ISO_SECONDS, chunk.take(pa.array(left)))
            values[part] = found
    return Numbers(values, missing)


def _query(connection: duckdb.DuckDBPyConnection, query: str, cells: pa.Array) -> np.ndarray:
    connection.register("cells", pa.table({"cell": cells}))
    return _floats(connection.sql(query).to_arrow_table()["number"])


def _floats(column: pa.ChunkedArray) -> np.ndarray:
    numbers = pc.fill_null(column.cast(pa.float64(), safe=False), np.nan)
    return np.array(numbers.to_numpy(), dtype=np.float64)


def _nulls(column: pa.ChunkedArray) -> np.ndarray:
    return np.asarray(column.is_null().to_numpy(), dtype=bool)


@dataclass(frozen=True)
class BadCell:
    """One cell that cannot be used.

    Attributes:
        row: Row of the table.
        column: Column name.
        expected: What would have been right.
        found: What is there.
    """

    row: int
    column: str
    expected: str
    found: str


@dataclass
class RowCheck:
    """Which rows of a table are bad, and why: a row counts once, under the first reason it was flagged for.

    Attributes:
        bad: bool ``(rows,)``.
        reasons: Rows per reason.
        first: The flagged cell of the lowest row.
    """

    bad: np.ndarray
    reasons: dict[str, int] = field(default_factory=dict)
    first: BadCell | None = None

    def flag(self, mask: np.ndarray, reason: str, column: str, expected: str, found: Callable[[int], str]) -> None:
        """Marks rows as bad.

        Args:
            mask: bool ``(rows,)``.
            reason: Name of the count.
            column: Column at fault.
            expected: What would have been right.
            found: Tells what stands in a row.
        """
        new = np.flatnonzero(mask & ~self.bad)
        if not len(new):
            return
        self.bad[new] = True
        self.reasons[reason] = self.reasons.get(reason, 0) + len(new)
        row = int(new[0])
        if self.first is None or row < self.first.row:
            self.first = BadCell(row, column, expected, found(row))

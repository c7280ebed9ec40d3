"""What tables of events, items and users have in common: required columns, ids, and the reckoning of bad rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from core.errors import DataError
from training.data.cells import BadCell, RowCheck, is_text
from training.data.files import RaggedRow, RawTable, shorten, unclosed_quote
from training.data.raw import IdColumn

BREAKS = r"[\x00\r\n]"
"""NUL and line breaks: never in an id. They would also betray a quote that swallowed rows."""


def require_columns(name: str, columns: Sequence[str], wanted: Sequence[str], note: str = "") -> None:
    """Raises DataError where a column of the table called ``name`` is missing, with those that are there."""
    names = list(columns)
    missing = [column for column in wanted if column not in names]
    if not missing:
        return
    one_column = len(names) == 1 and any(mark in names[0] for mark in ";\t|")
    raise DataError(
        f"column {', '.join(missing)} is missing",
        where=name,
        expected=", ".join(wanted) + (f" ({note})" if note else ""),
        found=shorten(", ".join(map(repr, names)), 400),
        next_step="separate the columns by commas" if one_column else "rename the columns",
    )


def read_ids(table: RawTable, name: str, check: RowCheck) -> IdColumn:
    """A column of ids as text, exactly as given; flags empty ones, whose code is 0.

    Raises:
        DataError: The column holds no text or integers, or an id holds NUL or a line break.
    """
    column = table.columns[name]
    if pa.types.is_integer(column.type):
        column = column.cast(pa.string())
    if not is_text(column.type):
        raise DataError(
            f"{name} is neither text nor integer",
            where=table.name,
            expected="ids as text, or integers that have one spelling",
            found=str(column.type),
            next_step=f"write {name} as text",
        )
    encoded = as_dictionary(column)
    ids = encoded.dictionary.cast(pa.string())
    codes = pc.fill_null(encoded.indices, -1).to_numpy()
    broken = pc.match_substring_regex(ids, BREAKS)
    if pc.any(broken).as_py():
        _refuse_break(table, name, ids, codes, broken)
    blank = pc.equal(pc.utf8_trim_whitespace(ids), "")
    empty = np.append(blank.to_numpy(zero_copy_only=False), True)[codes]  # -1 finds the last place
    check.flag(empty, f"empty {name}", name, "an id", lambda row: shorten(column[row].as_py()))
    return IdColumn(np.where(codes < 0, 0, codes).astype(np.int32), ids)


def as_dictionary(column: pa.ChunkedArray) -> pa.DictionaryArray:
    """One dictionary array with int32 codes for a chunked column of text."""
    if not pa.types.is_dictionary(column.type):
        column = column.cast(pa.string()).dictionary_encode()
    column = column.cast(pa.dictionary(pa.int32(), pa.string()))
    combined = column.unify_dictionaries().combine_chunks()
    if isinstance(combined, pa.ChunkedArray):  # no chunk at all
        return pa.array([], pa.string()).dictionary_encode()
    return combined


class Account:
    """The reckoning of a table's bad rows, part by part or at once."""

    def __init__(self) -> None:
        self._rows = 0
        self._reasons: dict[str, int] = {}
        self._first: _Place | None = None
        self._last: RawTable | None = None

    def add(self, table: RawTable, check: RowCheck) -> None:
        """Takes in a part; parts come in the file's order."""
        self._rows += len(check.bad)
        for reason, count in check.reasons.items():
            self._reasons[reason] = self._reasons.get(reason, 0) + count
        if self._first is None and check.first is not None:
            self._first = _cell_place(table, check.first)
        self._last = replace(table, columns=table.columns.schema.empty_table())

    @property
    def rows_read(self) -> int:
        """Rows so far, bad ones included."""
        return self._rows + len(self._ragged)

    @property
    def _ragged(self) -> Sequence[RaggedRow]:
        return () if self._last is None else self._last.ragged

    def settle(self, max_bad_share: float) -> tuple[dict[str, int], str | None]:
        """Counts of bad rows per reason and the first one in words.

        Raises:
            DataError: More than ``max_bad_share`` of the rows are bad.
        """
        reasons, first = dict(self._reasons), self._first
        ragged = self._ragged
        if self._last is not None and ragged:
            reasons["wrong number of cells"] = len(ragged)
            if first is None or ragged[0].row < first.row:
                first = _ragged_place(self._last, ragged[0])
        if first is None:
            return {}, None
        bad, rows = sum(reasons.values()), self.rows_read
        if bad > max_bad_share * rows:
            counts = ", ".join(f"{count:,} × {reason}" for reason, count in reasons.items())
            raise DataError(
                "too many bad rows, here is the first",
                where=f"{first.where}, column {first.column}",
                expected=first.expected,
                found=first.found,
                next_step=f"mend the file: {bad:,} of {rows:,} rows are bad ({counts}), "
                f"data.max_bad_share allows {max_bad_share:.2%}",
            )
        return reasons, f"{first.where}, column {first.column}: expected {first.expected}, found {first.found}"


def settle(table: RawTable, check: RowCheck, max_bad_share: float) -> tuple[dict[str, int], str | None]:
    """The account of a whole table, see :meth:`Account.settle`."""
    account = Account()
    account.add(table, check)
    return account.settle(max_bad_share)


@dataclass(frozen=True)
class _Place:
    row: int
    where: str
    column: str
    expected: str
    found: str


def _cell_place(table: RawTable, cell: BadCell) -> _Place:
    row = table.file_row(cell.row)
    return _Place(row, table.place(row), cell.column, cell.expected, cell.found)


def _ragged_place(table: RawTable, ragged: RaggedRow) -> _Place:
    found = f"{ragged.found} cells: {shorten(ragged.text)}"
    return _Place(ragged.row, table.place(ragged.row), "any", f"{ragged.expected} cells", found)


def _refuse_break(table: RawTable, name: str, ids: pa.Array, codes: np.ndarray, broken: pa.Array) -> None:
    at = int(np.flatnonzero(broken.to_numpy(zero_copy_only=False))[0])
    row = table.file_row(int(np.flatnonzero(codes == at)[0]))
    text = ids[at].as_py()
    if "\0" not in text and table.source is not None:
        raise unclosed_quote(table, row, text)
    raise DataError(
        "an id holds a control character",
        where=f"{table.place(row)}, column {name}",
        expected="text without NUL and line breaks",
        found=shorten(text),
    )

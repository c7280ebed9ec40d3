"""CSV text, plain or from an archive, read whole and columnar, with errors that name the line."""

from __future__ import annotations

import codecs
import collections
import csv
import gzip
import io
import itertools
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.csv

from core.errors import DataError

BLOCK_BYTES = 16 << 20
"""Bytes parsed at a time; also the longest row."""
HEADER_BYTES = 1 << 20
MOST_SHOWN = 60
"""Characters of a cell that a message shows."""
READ_ERRORS = (OSError, EOFError, zlib.error)
"""What a damaged file or gzip stream raises."""


@dataclass(frozen=True)
class TextFile:
    """A delimited text file, openable again and again.

    Attributes:
        name: As told to people.
        open: Opens the uncompressed bytes.
        delimiter: One character.
        quoted: Whether cells may stand in double quotes.
        header: Column names where the file has no header line.
    """

    name: str
    open: Callable[[], IO[bytes]]
    delimiter: str = ","
    quoted: bool = True
    header: tuple[str, ...] | None = None


@dataclass(frozen=True)
class RaggedRow:
    """A row with too many or too few cells.

    Attributes:
        row: Its place among the file's rows, header not counted.
        expected: Cells that the header has.
        found: Cells that it has.
        text: How it starts.
        lines: Line breaks inside it.
    """

    row: int
    expected: int
    found: int
    text: str
    lines: int


@dataclass(frozen=True)
class RawTable:
    """A table as it stands on disk.

    Attributes:
        name: The file.
        columns: The rows; all text where the file is text.
        source: The text file, for line numbers; None for Parquet.
        ragged: Rows left out of ``columns`` since their number of cells is wrong, in order; of the whole file where
            this is a part of it.
        first: Rows of the file before this part of it, ragged ones not counted.
    """

    name: str
    columns: pa.Table
    source: TextFile | None = None
    ragged: Sequence[RaggedRow] = field(default=())
    first: int = 0

    @property
    def rows_read(self) -> int:
        """Rows in the file."""
        return self.columns.num_rows + len(self.ragged)

    def file_row(self, row: int) -> int:
        """Place of row ``row`` of ``columns`` among all the file's rows, ragged ones included."""
        shifts = np.array([ragged.row - before for before, ragged in enumerate(self.ragged)], dtype=np.int64)
        place = self.first + row
        return place + int(np.searchsorted(shifts, place, side="right"))

    def place(self, file_row: int) -> str:
        """Where a row stands: the line as an editor counts (a header is line 1), or the row of a Parquet file."""
        if self.source is None:
            return f"{self.name}, row {file_row + 1}"
        try:
            return f"{self.name}, line {_line_of(self.source, file_row)}"
        except csv.Error:  # a cell beyond the csv module's limit
            return f"{self.name}, row {file_row + 1}"


def read_text(file: TextFile, text_ids: Iterable[str]) -> RawTable:
    """Reads delimited text, every cell as text; see :func:`read_file`."""
    ragged: list[RaggedRow] = []
    with told(file), file.open() as stream:
        table = pyarrow.csv.read_csv(stream, **_options(file, text_ids, ragged))
    raw = RawTable(file.name, table, file, ragged)
    if raw.rows_read == 0:
        raise no_rows(file.name, "only a header")
    _refuse_open_quote(raw)
    return raw


def read_text_parts(file: TextFile, text_ids: Iterable[str]) -> Iterator[RawTable]:
    """The same in parts of ``BLOCK_BYTES``, for files larger than memory."""
    ragged: list[RaggedRow] = []
    first = checked = 0
    with told(file), file.open() as stream:
        reader = pyarrow.csv.open_csv(stream, **_options(file, text_ids, ragged))
        none = pa.RecordBatch.from_pylist([], schema=reader.schema)  # rows at the end that are all ragged
        for batch in itertools.chain(reader, [none]):
            part = RawTable(file.name, pa.Table.from_batches([batch]), file, ragged, first)
            _refuse_open_quote(part, checked)
            checked = len(ragged)
            yield part
            first += batch.num_rows
    if first + len(ragged) == 0:
        raise no_rows(file.name, "only a header")


def no_rows(name: str, found: str) -> DataError:
    """The error for a table without rows."""
    return DataError("table has no rows", where=name, expected="rows", found=found)


def _options(file: TextFile, text_ids: Iterable[str], ragged: list[RaggedRow]) -> dict[str, Any]:
    """How pyarrow reads a file: rows with a wrong number of cells are put into ``ragged``."""
    names = list(file.header) if file.header else header_of(file)
    first_row = 1 if file.header else 2  # pyarrow counts rows from 1, the header among them

    def keep(row: pyarrow.csv.InvalidRow) -> str:
        start, lines = row.text[:MOST_SHOWN], row.text.count("\n")
        ragged.append(RaggedRow(row.number - first_row, row.expected_columns, row.actual_columns, start, lines))
        return "skip"

    encoded = pa.dictionary(pa.int32(), pa.string())
    text_ids = set(text_ids)
    return {
        # Threads would lose the row numbers of ragged rows.
        "read_options": pyarrow.csv.ReadOptions(
            use_threads=False, block_size=BLOCK_BYTES, column_names=list(file.header) if file.header else None
        ),
        "parse_options": pyarrow.csv.ParseOptions(
            delimiter=file.delimiter,
            quote_char='"' if file.quoted else False,
            newlines_in_values=file.quoted,
            invalid_row_handler=keep,
        ),
        "convert_options": pyarrow.csv.ConvertOptions(
            column_types={name: encoded if name in text_ids else pa.string() for name in names}
        ),
    }


def _refuse_open_quote(table: RawTable, checked: int = 0) -> None:
    open_quote = next((row for row in table.ragged[checked:] if row.lines), None)
    if open_quote is not None:
        raise unclosed_quote(table, open_quote.row, open_quote.text)


def check_quotes(file: TextFile) -> None:
    """Raises DataError where the file ends inside a quoted cell, which would swallow all rows behind the quote."""
    with told(file), file.open() as stream:
        lines = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
        try:
            collections.deque(csv.reader(lines, delimiter=file.delimiter, strict=True), maxlen=0)
        except csv.Error as error:
            if "unexpected end of data" in str(error):
                raise DataError(
                    "a quoted cell is never closed",
                    where=file.name,
                    expected='a closing "',
                    found="the end of the file",
                ) from None


def unclosed_quote(table: RawTable, file_row: int, text: str) -> DataError:
    """The error for a cell that runs over several lines where no such cell can be."""
    return DataError(
        "a cell runs over several lines: a quote is opened and not closed",
        where=f"{table.place(file_row)} (where it ends)",
        expected="both quotes on one line",
        found=shorten(text),
    )


def shorten(text: object, most: int = MOST_SHOWN) -> str:
    """``text`` quoted for a message, cut to ``most`` characters."""
    shown = repr(text)
    return shown if len(shown) <= most else f"{shown[:most]}…"


def header_of(file: TextFile) -> list[str]:
    """Column names in a file's first line."""
    with file.open() as stream:
        start = stream.readline(HEADER_BYTES)
    if not start.strip():
        if not _has_bytes(file):
            raise DataError("file is empty", where=file.name, expected="a header line and rows")
        raise DataError(
            "header is missing", where=f"{file.name}, line 1", expected="column names", found="a blank line"
        )
    if b"\0" in start:
        raise DataError(
            "not a text file", where=f"{file.name}, line 1", expected="CSV as UTF-8 text", found="NUL bytes"
        )
    line = start.decode("utf-8-sig").rstrip("\r\n")
    names = next(
        csv.reader([line], delimiter=file.delimiter, quoting=csv.QUOTE_MINIMAL if file.quoted else csv.QUOTE_NONE)
    )
    check_names(names, f"{file.name}, line 1")
    return names


def _has_bytes(file: TextFile) -> bool:
    with file.open() as stream:
        return any(part.strip() for part in iter(lambda: stream.read(HEADER_BYTES), b""))


def check_names(names: list[str], where: str) -> None:
    """Raises DataError where a column name stands twice."""
    repeated = [name for name, count in collections.Counter(names).items() if count > 1]
    if repeated:
        raise DataError(
            "a column stands twice", where=where, expected="each column name once", found=", ".join(map(repr, repeated))
        )


@contextmanager
def told(file: TextFile) -> Iterator[None]:
    """Tells what goes wrong in reading a text file."""
    try:
        yield
    except gzip.BadGzipFile as error:
        raise DataError("not a gzip file", where=file.name, expected="gzip, as .gz says", found=str(error)) from None
    except UnicodeDecodeError:
        raise _bad_encoding(file) from None
    except READ_ERRORS as error:
        raise DataError("file is damaged or cannot be read", where=file.name, found=str(error)) from None
    except pa.ArrowInvalid as error:
        if "UTF8" in str(error):
            raise _bad_encoding(file) from None
        hint = "look for a quote that is not closed" if "straddling" in str(error) else None
        raise DataError("cannot be read as CSV", where=file.name, found=str(error), next_step=hint) from None


def _bad_encoding(file: TextFile) -> DataError:
    """Finds the first bytes that are no UTF-8."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    line, found = 1, "other bytes"
    with file.open() as stream:
        for part in iter(lambda: stream.read(HEADER_BYTES), b""):
            waiting = decoder.getstate()[0]
            try:
                decoder.decode(part)
            except UnicodeDecodeError as error:
                whole = waiting + part
                line += whole.count(b"\n", 0, error.start)
                found = f"byte 0x{whole[error.start]:02x}"
                break
            line += part.count(b"\n")
    return DataError(
        "text is not UTF-8",
        where=f"{file.name}, line {line}",
        expected="UTF-8",
        found=found,
        next_step="save the file as UTF-8 (for example `iconv -f latin1 -t utf-8`)",
    )


def _line_of(file: TextFile, file_row: int) -> int:
    """Line on which a row ends. Reads the file again up to there: only for the one row that a message names."""
    with file.open() as stream:
        reader = csv.reader(
            io.TextIOWrapper(stream, encoding="utf-8-sig", errors="replace", newline=""),
            delimiter=file.delimiter,
            quoting=csv.QUOTE_MINIMAL if file.quoted else csv.QUOTE_NONE,
        )
        rows = filter(None, reader)  # pyarrow skips blank lines too
        collections.deque(itertools.islice(rows, file_row + (0 if file.header else 1)), maxlen=0)
        next(rows, None)
        return int(reader.line_num)

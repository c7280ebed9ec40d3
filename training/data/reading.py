"""Tables on disk, told apart by their ending."""

from __future__ import annotations

import gzip
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

import pyarrow as pa
import pyarrow.parquet as pq

from core.errors import DataError
from training.data.files import (
    RawTable,
    TextFile,
    check_names,
    header_of,
    no_rows,
    read_text,
    read_text_parts,
    shorten,
    told,
)

PART_ROWS = 1 << 19
"""Rows of a Parquet file that are held at a time where a table is read in parts."""
TEXT_ROW_BYTES = 30
"""About what a row of events takes as text; compressed an eighth of it."""


def read_file(path: Path, text_ids: Iterable[str]) -> RawTable:
    """Reads a table by its ending: .csv, .csv.gz or .parquet.

    Args:
        path: The file.
        text_ids: Columns with few distinct long texts, kept dictionary-encoded.

    Raises:
        DataError: Missing, not what its ending says, damaged, empty, or with a doubtful header.
    """
    if is_parquet(path):
        with _parquet(path) as file:
            table = file.read()
        if table.num_rows == 0:
            raise no_rows(str(path), "none")
        return RawTable(str(path), table)
    return read_text(_text(path), text_ids)


@dataclass(frozen=True)
class TableParts:
    """A table in parts, for files larger than memory.

    Attributes:
        name: The file or folder, as told to people.
        columns: Names of all columns.
        parts: Reads them in order, with the wanted columns alone where the files are Parquet.
    """

    name: str
    columns: tuple[str, ...]
    parts: Iterator[RawTable]


def read_parts(path: Path, wanted: Collection[str], text_ids: Collection[str]) -> TableParts:
    """Reads a table part by part: a file as :func:`read_file` takes, or a folder of Parquet files in order of names.

    Args:
        path: The file or folder.
        wanted: Columns that are read.
        text_ids: Columns with few distinct texts, kept dictionary-encoded.

    Raises:
        DataError: As :func:`read_file`; also, while parts are read, where the files of a folder differ in columns.
    """
    if not is_parquet(path):
        text = _text(path)
        with told(text):
            names = header_of(text)
        return TableParts(text.name, tuple(names), read_text_parts(text, text_ids))
    files = _files(path)
    with _parquet(files[0]) as file:
        columns = tuple(file.schema_arrow.names)
    return TableParts(str(path), columns, _parquet_parts(files, columns, wanted, text_ids))


def rows_about(path: Path) -> int:
    """Rows of a file or folder: exact for Parquet, by the size for text; 0 where there is none to be read."""
    if not path.exists():
        return 0
    if is_parquet(path):
        total = 0
        for one in _files(path):
            with _parquet(one) as file:
                total += file.metadata.num_rows
        return total
    return path.stat().st_size * (8 if path.name.lower().endswith(".gz") else 1) // TEXT_ROW_BYTES


def is_parquet(path: Path) -> bool:
    """Whether a path names a Parquet file or a folder, by its ending."""
    return path.is_dir() or path.name.lower().endswith((".parquet", ".pq"))


def _text(path: Path) -> TextFile:
    if not path.is_file():
        raise _not_found(path)
    name = path.name.lower()
    if name.endswith(".csv"):
        return TextFile(str(path), lambda: path.open("rb"))
    if name.endswith(".csv.gz"):
        return TextFile(str(path), lambda: cast(IO[bytes], gzip.open(path, "rb")))
    raise DataError("unknown kind of file", where=str(path), expected="a name ending in .csv, .csv.gz or .parquet")


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    found = sorted(file for file in path.glob("*") if file.name.lower().endswith((".parquet", ".pq")))
    if not path.is_dir() or not found:
        raise (
            _not_found(path)
            if not path.is_dir()
            else DataError(
                "folder holds no Parquet file", where=str(path), expected="files ending in .parquet", found="none"
            )
        )
    return found


def _not_found(path: Path) -> DataError:
    return DataError(
        "file not found" if not path.exists() else "not a file",
        where=str(path),
        expected="a CSV, CSV.gz or Parquet file",
        next_step="check the paths in the [data] section",
    )


@contextmanager
def _parquet(path: Path, text_ids: Collection[str] = ()) -> Iterator[pq.ParquetFile]:
    """An open Parquet file; what goes wrong while it is open is told as damage."""
    if not path.is_file():
        raise _not_found(path)
    try:
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
        encoded = [name for name in schema.names if name in text_ids and pa.types.is_string(schema.field(name).type)]
        with pq.ParquetFile(path, read_dictionary=encoded) as file:
            check_names(list(file.schema_arrow.names), str(path))
            yield file
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        raise DataError(
            "not a Parquet file, or a damaged one", where=str(path), expected="Parquet", found=shorten(str(error), 200)
        ) from None


def _parquet_parts(
    files: list[Path], columns: tuple[str, ...], wanted: Collection[str], text_ids: Collection[str]
) -> Iterator[RawTable]:
    total = 0
    for path in files:
        first = 0
        with _parquet(path, text_ids) as file:
            names = tuple(file.schema_arrow.names)
            if set(names) & set(wanted) != set(columns) & set(wanted):
                raise DataError(
                    "files of one table differ in columns",
                    where=str(path),
                    expected=", ".join(name for name in columns if name in wanted),
                    found=", ".join(name for name in names if name in wanted) or "none of them",
                )
            for batch in file.iter_batches(PART_ROWS, columns=[name for name in names if name in wanted]):
                yield RawTable(str(path), pa.Table.from_batches([batch]), first=first)
                first += batch.num_rows
        total += first
    if total == 0:
        raise no_rows(str(files[0] if len(files) == 1 else files[0].parent), "none")

"""Tables on disk, told apart by their ending."""

from __future__ import annotations

import gzip
from collections.abc import Iterable
from pathlib import Path
from typing import IO, cast

import pyarrow as pa
import pyarrow.parquet as pq

from core.errors import DataError
from training.data.files import RawTable, TextFile, check_names, read_text, shorten


def read_file(path: Path, text_ids: Iterable[str]) -> RawTable:
    """Reads a table by its ending: .csv, .csv.gz or .parquet.

    Args:
        path: The file.
        text_ids: Columns with few distinct long texts, kept dictionary-encoded.

    Raises:
        DataError: Missing, not what its ending says, damaged, empty, or with a doubtful header.
    """
    if not path.is_file():
        raise DataError(
            "file not found" if not path.exists() else "not a file",
            where=str(path),
            expected="a CSV, CSV.gz or Parquet file",
            next_step="check the paths in the [data] section",
        )
    name = path.name.lower()
    if name.endswith((".parquet", ".pq")):
        return _read_parquet(path)
    if name.endswith(".csv"):
        return read_text(TextFile(str(path), lambda: path.open("rb")), text_ids)
    if name.endswith(".csv.gz"):
        return read_text(TextFile(str(path), lambda: cast(IO[bytes], gzip.open(path, "rb"))), text_ids)
    raise DataError("unknown kind of file", where=str(path), expected="a name ending in .csv, .csv.gz or .parquet")


def _read_parquet(path: Path) -> RawTable:
    try:
        file = pq.ParquetFile(path)
        check_names(list(file.schema_arrow.names), str(path))
        table = file.read()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        raise DataError(
            "not a Parquet file, or a damaged one", where=str(path), expected="Parquet", found=shorten(str(error), 200)
        ) from None
    if table.num_rows == 0:
        raise DataError("table has no rows", where=str(path), expected="rows", found="none")
    return RawTable(str(path), table)

"""Columns larger than memory: npy files written front to back, read memory-mapped, and passed over in blocks.

npy and not Parquet or Arrow: a column is one contiguous array, so a memory map of it *is* the array that every stage
computes with, of any length, whatever block sizes it was written in.
"""

from __future__ import annotations

import io
import mmap
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

BLOCK_ROWS = 1 << 20
"""Rows that a pass holds in memory at a time."""


class ColumnWriter:
    """Writes one column block by block; its length need not be known before the end.

    Args:
        path: The npy file.
        dtype: Of all its cells.
    """

    def __init__(self, path: Path, dtype: Any) -> None:
        self._dtype, self.rows = np.dtype(dtype), 0
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("wb")
        self._file.write(self._header())

    def append(self, values: np.ndarray) -> None:
        """Adds cells ``(n,)``, cast to the column's dtype."""
        self._file.write(np.ascontiguousarray(values, dtype=self._dtype).data)
        self.rows += len(values)

    def close(self) -> None:
        """Completes the file."""
        with self._file:
            self._file.seek(0)
            self._file.write(self._header())

    def _header(self) -> bytes:
        """numpy leaves room for the length to grow, so that the header can be written again in place."""
        description = {"descr": self._dtype.str, "fortran_order": False, "shape": (self.rows,)}
        written = io.BytesIO()
        np.lib.format.write_array_header_1_0(written, description)
        return written.getvalue()


def read_column(path: Path) -> np.ndarray:
    """A column that was written, memory-mapped and read-only. Empty columns are read whole: nothing can be mapped."""
    try:
        column: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError:
        column = np.load(path, allow_pickle=False)
    return column


def scratch(folder: Path | None, length: int, dtype: Any) -> np.ndarray:
    """An array ``(length,)`` to fill, without content yet.

    Args:
        folder: Where a file takes what does not fit memory; it has no name, so that nothing is left whatever happens.
            None, or a length of 0, takes plain memory.
        length: Cells.
        dtype: Of the cells.
    """
    if folder is None or length == 0:
        return np.empty(length, dtype)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        return np.memmap(file, dtype, mode="w+", shape=(length,))


def is_mapped(array: np.ndarray) -> bool:
    """Whether an array, or what it is a part of, lies in a file."""
    return isinstance(array, np.memmap)


def release(*arrays: np.ndarray) -> None:
    """Takes the pages of memory-mapped arrays out of this process's memory; what is needed again is read again."""
    for array in arrays:
        pages = getattr(array, "_mmap", None)  # numpy's own handle, which slices share
        if pages is not None:
            pages.madvise(mmap.MADV_DONTNEED)


def blocks(*columns: np.ndarray, backwards: bool = False) -> Iterator[slice]:
    """Places of consecutive blocks of equally long columns; pages that were read are released after each.

    Args:
        columns: At least one.
        backwards: The last block comes first.
    """
    total = len(columns[0])
    starts = range(0, total, BLOCK_ROWS)
    for start in reversed(starts) if backwards else starts:
        yield slice(start, min(start + BLOCK_ROWS, total))
        release(*columns)


def counts_of(codes: np.ndarray, size: int) -> np.ndarray:
    """How often each code occurs, int64 ``(size,)``: ``numpy.bincount`` without a wider copy of all codes."""
    counts = np.zeros(size, dtype=np.int64)
    for part in blocks(codes):
        counts += np.bincount(codes[part], minlength=size)
    return counts

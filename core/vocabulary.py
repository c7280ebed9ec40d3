"""External ids and dense rows, in one frozen object."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa


class Vocabulary:
    """A one-to-one map between external string ids and rows ``0..n-1``.

    Args:
        ids: External ids in row order: strings, unique, never empty.

    Raises:
        ValueError: An id repeats or is empty.
    """

    def __init__(self, ids: Sequence[str] | np.ndarray | pa.Array) -> None:
        values = ids.to_numpy(zero_copy_only=False) if isinstance(ids, pa.Array) else ids
        self._ids = np.array(values, dtype=object)
        self._ids.setflags(write=False)
        self._rows = {key: row for row, key in enumerate(self._ids)}
        if len(self._rows) != len(self._ids):
            raise ValueError("a vocabulary holds each id once")
        if "" in self._rows:
            raise ValueError("an empty string is not an id")

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def ids(self) -> np.ndarray:
        """External ids, object array ``(n,)`` in row order; read-only."""
        return self._ids

    def row(self, key: str) -> int | None:
        """The row of ``key``, or None when the vocabulary lacks it."""
        return self._rows.get(key)

    def rows(self, keys: Iterable[str]) -> np.ndarray:
        """Rows of ``keys``, int64 ``(n,)`` in order; -1 for each unknown key."""
        get = self._rows.get
        return np.fromiter((get(key, -1) for key in keys), dtype=np.int64)

    def __contains__(self, key: str) -> bool:
        return key in self._rows

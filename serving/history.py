"""What users did, by external user id: one SQLite file per release, read at request time.

A rowid table with an index on the user id, not WITHOUT ROWID: histories are blobs far larger than the 1/20 of
a page up to which https://sqlite.org/withoutrowid.html advises it, and would thin out the inner pages of the tree.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from core.errors import ReleaseError
from core.features import UNKNOWN, FeatureTable
from core.histories import EMPTY_HISTORY, Histories, UserHistory
from core.vocabulary import Vocabulary

ROW_TYPE, TIME_TYPE, VALUE_TYPE, CODE_TYPE = np.dtype("<i4"), np.dtype("<f8"), np.dtype("<f4"), np.dtype("<i4")
KIND_TYPE = np.dtype("u1")
SCHEMA_VERSION = 2
"""Kept in SQLite's ``user_version``."""
SCHEMA = """
CREATE TABLE histories (
    row INTEGER PRIMARY KEY,
    user_id TEXT NOT NULL,
    item_rows BLOB NOT NULL,    -- int32, newest first
    timestamps BLOB NOT NULL,   -- float64, seconds since the epoch
    "values" BLOB NOT NULL,     -- float32, standardised
    kinds BLOB NOT NULL,        -- uint8 codes
    features BLOB NOT NULL      -- int32 codes
);
CREATE TABLE facts (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
"""
FIND = 'SELECT item_rows, timestamps, "values", kinds, features FROM histories WHERE user_id = ?'


@dataclass(frozen=True)
class UserStates:
    """What is known of a batch of users, in the order asked.

    Attributes:
        histories: B histories, newest event first; empty for an unknown user.
        features: int64 ``(B, F)`` attribute codes, ``UNKNOWN`` for an unknown user.
    """

    histories: tuple[UserHistory, ...]
    features: np.ndarray

    def take(self, places: Sequence[int]) -> UserStates:
        """The users at ``places``, in that order."""
        return UserStates(tuple(self.histories[place] for place in places), self.features[places])


class HistoryStore(Protocol):
    """Where the context step finds users."""

    def lookup(self, user_ids: Sequence[str]) -> UserStates:
        """The states of ``user_ids``; an unknown id has an empty history and is no error."""
        ...


class SqliteHistoryStore:
    """The history file of a release. Safe to share between threads."""

    def __init__(self, connection: sqlite3.Connection, n_features: int) -> None:
        self._connection = connection
        self._n_features = n_features

    def lookup(self, user_ids: Sequence[str]) -> UserStates:
        histories = []
        features = np.full((len(user_ids), self._n_features), UNKNOWN, dtype=np.int64)
        for at, user_id in enumerate(user_ids):
            found = self._connection.execute(FIND, (user_id,)).fetchone()
            if found is None:
                histories.append(EMPTY_HISTORY)
                continue
            rows, times, values, kinds, codes = found
            histories.append(
                UserHistory(
                    np.frombuffer(rows, ROW_TYPE),
                    np.frombuffer(times, TIME_TYPE),
                    np.frombuffer(values, VALUE_TYPE),
                    np.frombuffer(kinds, KIND_TYPE),
                )
            )
            features[at] = np.frombuffer(codes, CODE_TYPE)
        return UserStates(tuple(histories), features)

    def user_ids(self) -> list[str]:
        """All known users, in row order."""
        return [user_id for (user_id,) in self._connection.execute("SELECT user_id FROM histories ORDER BY row")]

    def close(self) -> None:
        """Frees the file."""
        self._connection.close()


def write_history(path: Path, users: Vocabulary, histories: Histories, features: FeatureTable) -> None:
    """Writes the history file of a release.

    Args:
        path: File to create.
        users: U users.
        histories: Their events ``(U)``, newest first.
        features: Their attribute codes ``(U, F)``; a table without columns becomes one column of ``UNKNOWN``.

    Raises:
        ReleaseError: The three do not describe the same users.
    """
    if not len(users) == len(histories) == len(features.codes):
        raise ReleaseError(
            "users, histories and features differ in length",
            where=str(path),
            found=f"{len(users)}, {len(histories)}, {len(features.codes)}",
        )
    codes = features.codes if features.width else np.full((len(users), 1), UNKNOWN)
    connection = sqlite3.connect(path)
    try:
        connection.executescript(f"PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA page_size=8192; {SCHEMA}")
        connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        connection.execute("INSERT INTO facts VALUES ('n_features', ?)", (codes.shape[1],))
        connection.executemany(
            "INSERT INTO histories VALUES (?, ?, ?, ?, ?, ?, ?)", _records(users, histories, codes.astype(CODE_TYPE))
        )
        connection.execute("CREATE UNIQUE INDEX by_user ON histories (user_id)")
        connection.commit()
    finally:
        connection.close()


def open_history(path: Path) -> SqliteHistoryStore:
    """Opens a history file read-only, without locks: a release never changes.

    Raises:
        ReleaseError: The file is missing or is no history file of this version.
    """
    try:
        uri = f"{path.resolve().as_uri()}?mode=ro&immutable=1"
        connection = sqlite3.connect(uri, uri=True, check_same_thread=False)
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (n_features,) = connection.execute("SELECT value FROM facts WHERE name = 'n_features'").fetchone()
    except (sqlite3.Error, TypeError) as error:
        raise ReleaseError("history file cannot be read", where=str(path), found=str(error)) from None
    if version != SCHEMA_VERSION:
        connection.close()
        raise ReleaseError(
            "history file of another version", where=str(path), expected=str(SCHEMA_VERSION), found=str(version)
        )
    connection.execute(f"PRAGMA mmap_size={1 << 40}")  # SQLite lowers it to what the build allows
    return SqliteHistoryStore(connection, n_features)


def _records(users: Vocabulary, histories: Histories, codes: np.ndarray) -> Iterator[tuple[object, ...]]:
    rows = _bytes(histories.item_rows, ROW_TYPE)
    times = _bytes(histories.timestamps, TIME_TYPE)
    values = _bytes(histories.values, VALUE_TYPE)
    kinds = _bytes(histories.kinds, KIND_TYPE)
    flat = _bytes(codes, CODE_TYPE)
    starts = histories.starts.tolist()
    width = codes.shape[1] * CODE_TYPE.itemsize
    for row, user_id in enumerate(users.ids):
        start, stop = starts[row], starts[row + 1]
        yield (
            row,
            user_id,
            rows[4 * start : 4 * stop],
            times[8 * start : 8 * stop],
            values[4 * start : 4 * stop],
            kinds[start:stop],
            flat[width * row : width * (row + 1)],
        )


def _bytes(array: np.ndarray, dtype: np.dtype) -> memoryview:
    """The array's bytes; slices of them are SQLite blobs without a copy in Python."""
    return np.ascontiguousarray(array, dtype).reshape(-1).view(np.uint8).data

"""A user's newest events, by one look into an index: readable the moment they are acknowledged."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Sequence

from core.errors import StoreUnavailableError
from core.feedback import FeedbackType
from core.feedback_ports import HISTORY_TYPES, RecentEvent

HistoryRow = tuple[str, int, str, str, str, float | None, int]
"""user_ref, seq, key, type, item, value, event_time_ms."""
QUERY = """SELECT item, type, value, event_time_ms, seq FROM recent
WHERE user_ref = ? AND type IN ({types}) ORDER BY seq DESC LIMIT ?"""


class RecentReader:
    """Reads the inbox's histories. Safe between threads.

    Args:
        database: A connection of its own; closed by :meth:`close`.
    """

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database, self._lock = database, threading.Lock()

    def newest(
        self, user_refs: Sequence[str], limit: int, types: Sequence[FeedbackType] = HISTORY_TYPES
    ) -> list[list[RecentEvent]]:
        """See ``core.feedback_ports.RecentEvents``."""
        query = QUERY.format(types=",".join("?" * len(types)))
        try:
            with self._lock:
                found = [self._database.execute(query, (ref, *types, limit)).fetchall() for ref in user_refs]
        except sqlite3.Error as error:
            raise StoreUnavailableError("histories cannot be read now", found=str(error)) from None
        return [[RecentEvent(*row) for row in rows] for rows in found]

    def close(self) -> None:
        """Frees the connection."""
        with self._lock:
            self._database.close()

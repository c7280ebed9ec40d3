"""A small event store in one SQLite file, behind the ports of the feedback loop: enough for one gateway.

Acknowledged after the commit, unique by event key, forged or expired tokens in quarantine.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path

from core.errors import StoreUnavailableError
from core.feedback import Event, Feedback, FeedbackType, Rejected, canonical, parse_event
from core.feedback_keys import FeedbackKeys
from core.feedback_ports import HISTORY_TYPES, Acknowledgement, RecentEvent, SystemClock
from core.feedback_reasons import Reason
from core.feedback_tokens import check_token

SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL UNIQUE, user_ref TEXT NOT NULL, body BLOB NOT NULL,
    kind TEXT NOT NULL, ingest_time_ms INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS by_user ON events (user_ref, seq) WHERE kind = 'feedback';
CREATE TABLE IF NOT EXISTS quarantine (
    seq INTEGER PRIMARY KEY, key TEXT, user_ref TEXT, reason TEXT NOT NULL, detail TEXT, body BLOB);
"""
KEPT_BYTES = 4096


def store_file(var: Path) -> Path:
    """Where the gateway's events lie; ``var`` is ``paths.var``."""
    return var / "feedback" / "gateway.sqlite"


class EventStore:
    """Sink and newest events in one. Safe between threads.

    Args:
        path: The file; made where it is missing.
        keys: Verify tokens.
    """

    def __init__(self, path: Path, keys: FeedbackKeys) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._keys, self._clock = keys, SystemClock()
        self._write_lock, self._read_lock = threading.Lock(), threading.Lock()
        self._writer = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._writer.execute("PRAGMA journal_mode=WAL")
        self._writer.execute("PRAGMA synchronous=FULL")
        self._writer.executescript(SCHEMA)
        self._reader = sqlite3.connect(path, check_same_thread=False, isolation_level=None)

    def append(self, batch: Sequence[Event | Rejected]) -> list[Acknowledgement]:
        """See ``core.feedback_ports.EventSink``."""
        with self._write_lock:
            try:
                self._writer.execute("BEGIN IMMEDIATE")
                acknowledged = [self._one(event) for event in batch]
                self._writer.execute("COMMIT")
            except sqlite3.OperationalError as error:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                raise StoreUnavailableError("events cannot be stored", found=str(error)) from None
        return acknowledged

    def newest(
        self, user_refs: Sequence[str], limit: int, types: Sequence[FeedbackType] = HISTORY_TYPES
    ) -> list[list[RecentEvent]]:
        """See ``core.feedback_ports.RecentEvents``."""
        with self._read_lock:
            return [self._newest(ref, limit, types) for ref in user_refs]

    def close(self) -> None:
        """Frees the file."""
        self._writer.close()
        self._reader.close()

    def _one(self, event: Event | Rejected) -> Acknowledgement:
        if isinstance(event, Rejected):
            return self._quarantined(event.event_id, event.user_ref, event.reason, event.detail, event.payload)
        body = canonical(event)
        known = self._writer.execute("SELECT seq, body FROM events WHERE key = ?", (event.key,)).fetchone()
        if known is not None:
            if known[1] == body:
                return Acknowledgement(event.key, "duplicate", seq=known[0])
            return self._quarantined(event.key, event.user_ref, Reason.ID_CONFLICT, "another body", body)
        if isinstance(event, Feedback) and event.type == "delete_user":
            self._writer.execute("DELETE FROM events WHERE user_ref = ?", (event.user_ref,))
            self._writer.execute("DELETE FROM quarantine WHERE user_ref = ?", (event.user_ref,))
        elif isinstance(event, Feedback):
            reason = self._refused(event)
            if reason is not None:
                return self._quarantined(event.key, event.user_ref, reason, "", body)
        cursor = self._writer.execute(
            "INSERT INTO events (key, user_ref, body, kind, ingest_time_ms) VALUES (?, ?, ?, ?, ?)",
            (event.key, event.user_ref, body, event.kind, self._clock.now_ms()),
        )
        return Acknowledgement(event.key, "stored", seq=cursor.lastrowid)

    def _refused(self, event: Feedback) -> Reason | None:
        if event.request_id is None:
            return Reason.ORPHAN
        now_s = self._clock.now_ms() / 1000
        return check_token(self._keys.tokens, event.token, event.request_id, event.user_ref, now_s)

    def _quarantined(
        self, key: str | None, user_ref: str | None, reason: Reason, detail: str, body: bytes
    ) -> Acknowledgement:
        self._writer.execute(
            "INSERT INTO quarantine (key, user_ref, reason, detail, body) VALUES (?, ?, ?, ?, ?)",
            (key, user_ref, str(reason), detail, body[:KEPT_BYTES]),
        )
        return Acknowledgement(key, "quarantined", reason)

    def _newest(self, user_ref: str, limit: int, types: Sequence[FeedbackType]) -> list[RecentEvent]:
        rows = self._reader.execute(
            "SELECT seq, body FROM events WHERE user_ref = ? AND kind = 'feedback' ORDER BY seq DESC LIMIT ?",
            (user_ref, 4 * limit),
        ).fetchall()
        found = [(seq, parse_event(body)) for seq, body in rows]
        taken_back = {event.corrects for _, event in found if isinstance(event, Feedback) and event.corrects}
        kept = [
            RecentEvent(event.item, event.type, event.value, event.event_time_ms, seq)
            for seq, event in found
            if isinstance(event, Feedback) and event.type in types and event.item and event.key not in taken_back
        ]
        return kept[:limit]

"""What was refused is kept, with the reason, until retention ends: nothing is dropped silently."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from core.feedback import body_digest
from core.feedback_reasons import Reason

KEPT_BYTES = 4_096
"""Of a payload."""


@dataclass(frozen=True)
class Refused:
    """A row of the quarantine.

    Attributes:
        ingest_ms: When it came first.
        key: Id of the event, where it had one.
        reason: Why.
        detail: For people.
        body: The first bytes of what came.
        times: How often the very same came.
    """

    ingest_ms: int
    key: str | None
    reason: Reason
    detail: str
    body: bytes
    times: int


def put_in_quarantine(
    database: sqlite3.Connection,
    key: str | None,
    user_ref: str | None,
    reason: Reason,
    detail: str,
    body: bytes,
    now_ms: int,
) -> None:
    """Inside a transaction; the same thing again is counted, not kept twice."""
    digest = body_digest(b"\0".join((str(reason).encode(), (key or "").encode(), (user_ref or "").encode(), body)))
    database.execute(
        "INSERT INTO quarantine VALUES (?, ?, ?, ?, ?, ?, ?, 1) ON CONFLICT (digest) DO UPDATE SET times = times + 1",
        (digest, now_ms, key, user_ref, str(reason), detail, body[:KEPT_BYTES]),
    )


def quarantined(database: sqlite3.Connection, limit: int) -> list[Refused]:
    """The newest rows."""
    rows = database.execute(
        "SELECT ingest_ms, key, reason, detail, body, times FROM quarantine ORDER BY ingest_ms DESC, digest LIMIT ?",
        (limit,),
    )
    return [Refused(ms, key, Reason(reason), detail, body, times) for ms, key, reason, detail, body, times in rows]


def quarantine_counts(database: sqlite3.Connection) -> dict[str, int]:
    """Events by reason, repetitions included."""
    return dict(database.execute("SELECT reason, SUM(times) FROM quarantine GROUP BY reason ORDER BY reason"))

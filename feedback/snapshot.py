"""Datasets of feedback: immutable lists of sealed segments.

``<store>/datasets/<content>-<watermark>.json``. The content is a hash of the events alone: events that came in another
order, in other batches, or twice, have the same. The watermark says which windows had closed: labels depend on both.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from core.artifacts import replace_file
from core.errors import FeedbackError
from feedback.segments import check_segment


class SegmentRecord(BaseModel):
    """One segment of a dataset."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str
    events: int
    first_seq: int
    last_seq: int


class Snapshot(BaseModel):
    """A dataset of feedback."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    schema_version: int = 1
    content: str
    """Hex; of the events as a set."""
    events: int
    watermark_ms: int
    """Everything that the server had acknowledged up to here is in it, but feedback without its impression."""
    deleted_users: int
    """Deleted so far: their events are in no segment."""
    segments: tuple[SegmentRecord, ...]

    def files(self, folder: Path) -> list[Path]:
        """Paths of the segments, each checked. Raises FeedbackError where one is missing or damaged."""
        return [check_segment(folder, segment.sha256) for segment in self.segments]

    def save(self, folder: Path) -> Path:
        """Writes the list down, once, and gives back where."""
        path = folder / "datasets" / f"{self.content[:16]}-{self.watermark_ms}.json"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, self.model_dump_json(indent=1).encode())
        return path


def take_snapshot(database: sqlite3.Connection) -> Snapshot:
    """Lists what is sealed now."""
    database.execute("BEGIN")  # one view of all tables
    try:
        rows = database.execute(
            "SELECT sha256, events, first_seq, last_seq, content FROM segments ORDER BY first_seq, sha256"
        ).fetchall()
        counters = dict(database.execute("SELECT name, value FROM counters"))
    finally:
        database.execute("ROLLBACK")
    content = sum(int(row[4], 16) for row in rows) % (1 << 256)
    return Snapshot(
        content=f"{content:064x}",
        events=sum(row[1] for row in rows),
        watermark_ms=counters["ingest_ms"],
        deleted_users=counters.get("deleted_users", 0),
        segments=tuple(SegmentRecord(sha256=a, events=b, first_seq=c, last_seq=d) for a, b, c, d, _ in rows),
    )


def load_snapshot(path: Path) -> Snapshot:
    """Reads one again. Raises FeedbackError where it is none."""
    try:
        return Snapshot.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise FeedbackError("no dataset of feedback", where=str(path), found=str(error)[:300]) from None

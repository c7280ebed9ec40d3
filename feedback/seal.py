"""From the inbox to sealed segments, and the upkeep that goes with it.

One process at a time, by a lock that its death frees. A segment is on disk before the inbox says so; a crash in
between leaves a file that nothing names, and the next run writes the very same one or sweeps it away.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from core.artifacts import TEMPORARY
from core.errors import FeedbackError
from core.feedback import body_digest
from core.feedback_ports import Clock
from core.feedback_reasons import Reason
from core.sections import FeedbackSettings
from feedback.inbox import Inbox
from feedback.ingest import DAY_MS
from feedback.quarantine import put_in_quarantine
from feedback.segments import check_segment, content_of, segment_path, segment_table, write_segment

SEGMENT_EVENTS = 500_000
"""Most events of one segment."""
READY = """
SELECT seq, ingest_ms, events.key, user_ref, is_impression, CAST(body AS BLOB), request_id,
    is_impression OR EXISTS (SELECT 1 FROM ids WHERE ids.key = 'imp:' || request_id) AS has_impression,
    (SELECT digest FROM ids WHERE ids.key = events.key) AS digest
FROM events WHERE segment IS NULL AND seq > ? ORDER BY seq LIMIT ?
"""


@dataclass(frozen=True)
class Sealed:
    """What one run did.

    Attributes:
        events: Sealed now.
        waiting: Feedback that still waits for its impression.
        orphans: Feedback whose impression never came, now in quarantine.
        corrupt: Rows that were damaged in the inbox, now in quarantine.
        forgotten: Events of deleted users taken out of segments.
        expired: Segments whose retention ended.
    """

    events: int = 0
    waiting: int = 0
    orphans: int = 0
    corrupt: int = 0
    forgotten: int = 0
    expired: int = 0


class Sealer:
    """Seals and tidies a store.

    Args:
        folder: Of the store.
        inbox: Its inbox.
        settings: Times.
        clock: Wall time.
    """

    def __init__(self, folder: Path, inbox: Inbox, settings: FeedbackSettings, clock: Clock) -> None:
        self._folder, self._inbox, self._settings, self._clock = folder, inbox, settings, clock

    def run(self) -> Sealed:
        """Applies deletions, seals what is ready, drops what is too old.

        Raises:
            StoreUnavailableError: The inbox cannot be used now.
            FeedbackError: Another process seals, or a segment that a deletion concerns is damaged.
        """
        with _alone(self._folder):
            self._sweep()
            done = Sealed(forgotten=self._forget())
            seq, last = -1, 0
            while last > seq:
                seq = last
                last, done = self._seal_after(seq, done)
            return replace(done, expired=self._expire())

    def is_due(self) -> bool:
        """Whether enough waits in the inbox for a segment, or something has waited for long."""
        with closing(self._inbox.reader()) as database:
            count, oldest_ms = database.execute(
                "SELECT COUNT(*), MIN(ingest_ms) FROM events WHERE segment IS NULL"
            ).fetchone()
        is_old = count > 0 and self._clock.now_ms() - oldest_ms >= self._settings.segment_minutes * 60_000
        return count >= self._settings.segment_events or is_old

    def repair(self, sha256: str) -> bool:
        """Writes a damaged segment again from the inbox; False where the inbox no longer holds all of it."""
        with _alone(self._folder), closing(self._inbox.reader()) as database:
            rows = database.execute(
                "SELECT seq, ingest_ms, key, user_ref, is_impression, CAST(body AS BLOB) FROM events "
                "WHERE segment = ? ORDER BY seq",
                (sha256,),
            ).fetchall()
            table = segment_table(rows)
            (expected,) = database.execute("SELECT content FROM segments WHERE sha256 = ?", (sha256,)).fetchone()
            if f"{content_of(table):064x}" != expected:
                return False
            return write_segment(self._folder, table) == sha256

    def _seal_after(self, seq: int, done: Sealed) -> tuple[int, Sealed]:
        """Seals at most one segment of what came after ``seq``; gives back how far it looked."""
        with closing(self._inbox.reader()) as database:
            rows = database.execute(READY, (seq, SEGMENT_EVENTS)).fetchall()
        if not rows:
            return seq, done
        orphan_before = self._clock.now_ms() - round(self._settings.orphan_minutes * 60_000)
        ready, orphans, corrupt, waiting = [], [], [], 0
        for *row, _, has_impression, digest in rows:
            if body_digest(row[5]) != digest:
                corrupt.append(row)
            elif has_impression:
                ready.append(tuple(row))
            elif row[1] < orphan_before:
                orphans.append(row)
            else:
                waiting += 1
        table = segment_table(ready)
        sha256 = write_segment(self._folder, table) if ready else None
        with self._inbox.writing() as database:
            sealed = 0
            if sha256 is not None:
                marked = database.executemany(
                    "UPDATE events SET segment = ? WHERE seq = ? AND segment IS NULL",
                    [(sha256, row[0]) for row in ready],
                )
                sealed = marked.rowcount
                if sealed == len(ready):
                    _register(database, sha256, table)
            for found, reason, detail in (
                (orphans, Reason.ORPHAN, "its impression never came"),
                (corrupt, Reason.CORRUPT, "the inbox holds other bytes than were stored"),
            ):
                for row in found:
                    # Gone already: its user was deleted meanwhile, and must not come back through the quarantine.
                    if database.execute("DELETE FROM events WHERE seq = ?", (row[0],)).rowcount:
                        put_in_quarantine(database, row[2], row[3], reason, detail, row[5], row[1])
                        database.execute("DELETE FROM recent WHERE user_ref = ? AND seq = ?", (row[3], row[0]))
            if sealed != len(ready):
                # A user was deleted while the segment was written: its rows are not all there any more.
                database.execute("UPDATE events SET segment = NULL WHERE segment = ?", (sha256,))
                return seq, done
        return rows[-1][0], replace(
            done, events=done.events + sealed, waiting=done.waiting + waiting,
            orphans=done.orphans + len(orphans), corrupt=done.corrupt + len(corrupt),
        )  # fmt: skip

    def _forget(self) -> int:
        """Takes deleted users out of sealed segments: a new file for each one that held them."""
        with closing(self._inbox.reader()) as database:
            deleted = dict(database.execute("SELECT user_ref, seq FROM deleted"))
            segments = [row for (row,) in database.execute("SELECT sha256 FROM segments ORDER BY first_seq")]
        if not deleted:
            return 0
        users = pa.array(sorted(deleted))
        gone = 0
        for sha256 in segments:
            path = check_segment(self._folder, sha256)
            owners = pq.read_table(path, columns=["seq", "user_ref"])
            theirs = owners.filter(pc.is_in(owners["user_ref"], users)).to_pylist()
            dropped = [row["seq"] for row in theirs if row["seq"] < deleted[row["user_ref"]]]
            if dropped:
                table = pq.read_table(path)
                self._replace(sha256, table.filter(pc.invert(pc.is_in(table["seq"], pa.array(dropped)))))
                gone += len(dropped)
        with self._inbox.writing() as database:
            for user, seq in deleted.items():
                database.execute("DELETE FROM deleted WHERE user_ref = ? AND seq = ?", (user, seq))
            database.execute(
                "INSERT INTO counters VALUES ('deleted_users', ?) ON CONFLICT (name) DO UPDATE SET "
                "value = value + excluded.value",
                (len(deleted),),
            )
        return gone

    def _replace(self, sha256: str, kept: pa.Table) -> None:
        fresh = write_segment(self._folder, kept) if len(kept) else None
        with self._inbox.writing() as database:
            database.execute("DELETE FROM segments WHERE sha256 = ?", (sha256,))
            if fresh is not None:
                _register(database, fresh, kept)
                database.execute("UPDATE events SET segment = ? WHERE segment = ?", (fresh, sha256))
        segment_path(self._folder, sha256).unlink(missing_ok=True)

    def _expire(self) -> int:
        """Drops what retention no longer allows, and sealed events that the inbox need not keep."""
        now_ms = self._clock.now_ms()
        oldest = now_ms - round(self._settings.retention_days * DAY_MS)
        with self._inbox.writing() as database:
            old = database.execute("SELECT sha256, last_seq FROM segments WHERE newest_ms < ?", (oldest,)).fetchall()
            for sha256, last_seq in old:
                database.execute("DELETE FROM segments WHERE sha256 = ?", (sha256,))
                database.execute("DELETE FROM ids WHERE seq <= ?", (last_seq,))
                database.execute("DELETE FROM recent WHERE seq <= ?", (last_seq,))
            database.execute("DELETE FROM quarantine WHERE ingest_ms < ?", (oldest,))
            too_old = now_ms - round(self._settings.oldest_days * DAY_MS)
            database.execute("DELETE FROM daily WHERE day < ?", (too_old // DAY_MS,))
            database.execute(
                "DELETE FROM events WHERE segment IS NOT NULL AND ingest_ms < ?",
                (now_ms - round(self._settings.keep_sealed_hours * 3_600_000),),
            )
        for sha256, _ in old:
            segment_path(self._folder, sha256).unlink(missing_ok=True)
        return len(old)

    def _sweep(self) -> None:
        """Removes files that no row names: leftovers of a process that died."""
        with closing(self._inbox.reader()) as database:
            named = {row for (row,) in database.execute("SELECT sha256 FROM segments")}
        for path in (self._folder / "segments").glob("*"):
            if path.name.startswith(TEMPORARY) or path.stem not in named:
                path.unlink(missing_ok=True)


def _register(database: sqlite3.Connection, sha256: str, table: pa.Table) -> None:
    seqs = table["seq"]
    database.execute(
        "INSERT INTO segments VALUES (?, ?, ?, ?, ?, ?)",
        (sha256, seqs[0].as_py(), seqs[-1].as_py(), len(table), f"{content_of(table):064x}",
         pc.max(table["ingest_ms"]).as_py()),
    )  # fmt: skip


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    handle = os.open(folder / "seal.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FeedbackError(
                "another process is sealing this event store", where=str(folder), next_step="wait for it"
            ) from None
        yield
    finally:
        os.close(handle)

"""A sink before a sink: while the broker is away, events wait on this machine's disk, up to a limit."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from core.errors import StoreUnavailableError
from core.feedback import Event, Rejected
from core.feedback_ports import Acknowledgement, Clock
from core.feedback_tokens import TokenKeys
from core.sections import FeedbackSettings
from feedback.judge import judge
from feedback.wire import Arrival, pack, unpack

SCHEMA = "CREATE TABLE IF NOT EXISTS spool (id INTEGER PRIMARY KEY, arrival BLOB NOT NULL)"
AT_ONCE = 500
RETRY_SECONDS = 0.5


class ArrivalSink(Protocol):
    """What a spool empties into: a sink that takes events with the time of their arrival."""

    def append_arrivals(self, arrivals: Sequence[Arrival]) -> list[Acknowledgement]:
        """All of them durably, or StoreUnavailableError."""

    def close(self) -> None:
        """Frees connections."""


class Spool:
    """Sends on what it can, keeps what it cannot, and empties itself in the background. Safe between threads.

    Args:
        file: The spool; made where it is missing. One process uses it.
        onward: Where events go. Closed with this.
        tokens: Events are judged here: a token may run out while they wait.
        settings: ``spool_events`` is the limit.
        clock: Wall time.

    Attributes:
        waiting: Events on this machine's disk.
    """

    waiting: int

    def __init__(
        self, file: Path, onward: ArrivalSink, tokens: TokenKeys, settings: FeedbackSettings, clock: Clock
    ) -> None:
        self._onward, self._tokens, self._settings, self._clock = onward, tokens, settings, clock
        file.parent.mkdir(parents=True, exist_ok=True)
        self._database = sqlite3.connect(file, check_same_thread=False, isolation_level=None)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=FULL")
        self._database.execute(SCHEMA)
        (self.waiting,) = self._database.execute("SELECT COUNT(*) FROM spool").fetchone()
        self._lock = threading.Lock()
        self._stop, self._wake = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._empty_for_ever, name="spool", daemon=True)
        self._thread.start()

    def append(self, batch: Sequence[Event | Rejected]) -> list[Acknowledgement]:
        """See ``core.feedback_ports.EventSink``."""
        now_ms = self._clock.now_ms()
        arrivals = [Arrival(event, now_ms) for event in batch]
        if self.waiting == 0:
            try:
                return self._onward.append_arrivals(arrivals)
            except StoreUnavailableError:
                pass
        with self._lock:
            if self.waiting + len(batch) > self._settings.spool_events:
                raise StoreUnavailableError(
                    "the broker is away and the spool is full",
                    expected=f"at most {self._settings.spool_events:,}",
                    found=f"{self.waiting:,} events wait",
                    next_step="bring the broker back; send these events again later",
                    retry_after_s=5,
                )
            try:
                self._database.execute("BEGIN IMMEDIATE")
                self._database.executemany(
                    "INSERT INTO spool (arrival) VALUES (?)", [(pack(arrival),) for arrival in arrivals]
                )
                self._database.execute("COMMIT")
            except sqlite3.Error as error:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise StoreUnavailableError("the spool cannot be written", found=str(error)) from None
            self.waiting += len(batch)
        self._wake.set()
        verdicts = [judge(event, now_ms, self._tokens, self._settings) for event in batch]
        return [
            Acknowledgement(verdict.key, "quarantined" if verdict.reason else "stored", verdict.reason)
            for verdict in verdicts
        ]

    def empty(self) -> None:
        """Sends on everything that waits. Raises StoreUnavailableError where the broker is away."""
        while True:
            with self._lock:
                rows = self._database.execute(f"SELECT id, arrival FROM spool ORDER BY id LIMIT {AT_ONCE}").fetchall()
            if not rows:
                return
            self._onward.append_arrivals([unpack(arrival) for _, arrival in rows])
            with self._lock:  # a crash before this sends them twice, and equal events count once
                self._database.execute("DELETE FROM spool WHERE id <= ?", (rows[-1][0],))
                self.waiting -= len(rows)

    def close(self) -> None:
        """Stops the background thread; what waits stays on disk for the next start."""
        self._stop.set()
        self._wake.set()
        self._thread.join()
        self._database.close()
        self._onward.close()

    def _empty_for_ever(self) -> None:
        while not self._stop.is_set():
            try:
                self.empty()
                self._wake.wait()
                self._wake.clear()
            except (StoreUnavailableError, sqlite3.Error):  # broker away, disk full: both may pass
                self._stop.wait(RETRY_SECONDS)

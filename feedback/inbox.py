"""The inbox: where events become durable, in one SQLite file in write-ahead mode.

Acknowledged means committed and synced. Several processes may write; one transaction holds a whole batch, so a crash
leaves all of it or nothing. Ids stay known after their events were sealed, for as long as a late copy could come.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from core.errors import StoreUnavailableError
from core.feedback_ports import Acknowledgement, Clock
from core.feedback_tokens import TokenKeys
from core.sections import FeedbackSettings
from feedback.ingest import Ingest
from feedback.judge import judge
from feedback.wire import Arrival

INBOX_FILE = "inbox.sqlite"
CACHE_KB = 8_192
"""Pages that SQLite keeps. 64 MiB took as long per event (three rounds of 150,000), and filled up in the gateway for
five minutes of traffic, which looks like a leak."""
SCHEMA = """
CREATE TABLE IF NOT EXISTS counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT OR IGNORE INTO counters VALUES ('seq', 0), ('ingest_ms', 0);
CREATE TABLE IF NOT EXISTS events (
    seq INTEGER PRIMARY KEY, ingest_ms INTEGER NOT NULL, key TEXT NOT NULL, user_ref TEXT NOT NULL,
    is_impression INTEGER NOT NULL, request_id TEXT, body BLOB NOT NULL, segment TEXT);
CREATE INDEX IF NOT EXISTS unsealed ON events (seq) WHERE segment IS NULL;
CREATE TABLE IF NOT EXISTS ids (key TEXT PRIMARY KEY, digest BLOB NOT NULL, seq INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS recent (
    user_ref TEXT NOT NULL, seq INTEGER NOT NULL, key TEXT NOT NULL, type TEXT NOT NULL, item TEXT NOT NULL,
    value REAL, event_time_ms INTEGER NOT NULL, PRIMARY KEY (user_ref, seq)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS corrections (
    user_ref TEXT NOT NULL, key TEXT NOT NULL, PRIMARY KEY (user_ref, key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS daily (
    user_ref TEXT NOT NULL, day INTEGER NOT NULL, events INTEGER NOT NULL, PRIMARY KEY (user_ref, day)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS quarantine (
    digest BLOB PRIMARY KEY, ingest_ms INTEGER NOT NULL, key TEXT, user_ref TEXT, reason TEXT NOT NULL,
    detail TEXT NOT NULL, body BLOB NOT NULL, times INTEGER NOT NULL DEFAULT 1) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS deleted (user_ref TEXT PRIMARY KEY, seq INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS forgotten (user_ref TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS segments (
    sha256 TEXT PRIMARY KEY, first_seq INTEGER NOT NULL, last_seq INTEGER NOT NULL, events INTEGER NOT NULL,
    content TEXT NOT NULL, newest_ms INTEGER NOT NULL) WITHOUT ROWID;
"""


class Inbox:
    """The SQLite file and everything that is written to it when events come in. Safe between threads and processes.

    Args:
        folder: Of the store; made where it is missing.
        tokens: Keys of impression tokens.
        settings: Limits.
        clock: Wall time.
    """

    def __init__(self, folder: Path, tokens: TokenKeys, settings: FeedbackSettings, clock: Clock) -> None:
        self._tokens, self._settings, self._clock = tokens, settings, clock
        self._path = folder / INBOX_FILE
        self._lock = threading.Lock()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(
                self._path, timeout=settings.busy_seconds, check_same_thread=False, isolation_level=None
            )
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=FULL")
            self._database.execute(f"PRAGMA cache_size=-{CACHE_KB}")
            self._database.executescript(SCHEMA)
            (self._last_ms,) = self._database.execute("SELECT value FROM counters WHERE name = 'ingest_ms'").fetchone()
        except (sqlite3.Error, OSError) as error:
            raise unavailable(self._path, error) from None

    def append(self, arrivals: Sequence[Arrival]) -> list[Acknowledgement]:
        """See ``core.feedback_ports.EventSink``; events are judged by the time of their arrival."""
        verdicts = [
            judge(arrival.event, arrival.arrived_ms, self._tokens, self._settings) for arrival in arrivals
        ]  # before the lock: signatures take as long as the writing
        now_ms = self.now_ms()
        with self.writing() as database:
            counters = dict(database.execute("SELECT name, value FROM counters WHERE name IN ('seq', 'ingest_ms')"))
            now_ms = max(now_ms, counters["ingest_ms"])
            ingest = Ingest(database, verdicts, now_ms, counters["seq"], self._settings.user_events_per_day)
            acknowledged = [ingest.take(verdict) for verdict in verdicts]
            ingest.write()
            database.executemany(
                "UPDATE counters SET value = ? WHERE name = ?", [(ingest.last_seq, "seq"), (now_ms, "ingest_ms")]
            )
        self._last_ms = now_ms
        return acknowledged

    def now_ms(self) -> int:
        """The clock, never behind what was acknowledged.

        A clock that was set back must not make everybody's events lie ahead.
        """
        return max(self._clock.now_ms(), self._last_ms)

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction. Raises StoreUnavailableError where it cannot be begun or committed; nothing is left then."""
        with self._lock:
            database = self._database
            try:
                database.execute("BEGIN IMMEDIATE")
                yield database
                database.execute("COMMIT")
            except sqlite3.Error as error:
                self._give_up()
                raise unavailable(self._path, error) from None
            except BaseException:
                self._give_up()
                raise

    def reader(self) -> sqlite3.Connection:
        """A connection that only reads, and never waits for writers. The caller closes it."""
        try:
            return sqlite3.connect(
                f"{self._path.absolute().as_uri()}?mode=ro", uri=True, check_same_thread=False, isolation_level=None
            )
        except sqlite3.Error as error:
            raise unavailable(self._path, error) from None

    def close(self) -> None:
        """Frees the file."""
        with self._lock:
            self._database.close()

    def _give_up(self) -> None:
        try:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
        except sqlite3.Error:  # the file is gone or full: the next BEGIN tells
            pass


def unavailable(where: Path, error: Exception) -> StoreUnavailableError:
    """What a caller hears of a disk or database that does not work now."""
    return StoreUnavailableError(
        "the event store cannot be used now", where=str(where), found=str(error),
        next_step="free space or wait, then send the same events again; `conch events verify` looks for damage",
    )  # fmt: skip

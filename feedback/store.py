"""The event store: inbox, histories, sealed segments and datasets of one folder."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

from core.errors import FeedbackError
from core.feedback import Event, FeedbackType, Rejected
from core.feedback_keys import FeedbackKeys
from core.feedback_ports import HISTORY_TYPES, Acknowledgement, Clock, RecentEvent, SystemClock
from core.sections import FeedbackSettings, LabelSettings
from feedback.inbox import Inbox
from feedback.online import OnlineMetrics, online_metrics
from feedback.quarantine import Refused, quarantine_counts, quarantined
from feedback.recent import HistoryRow, RecentReader
from feedback.seal import Sealed, Sealer
from feedback.segments import check_segment
from feedback.snapshot import Snapshot, take_snapshot
from feedback.wire import Arrival


def store_folder(var: Path) -> Path:
    """Where the events lie; ``var`` is ``paths.var``."""
    return var / "feedback"


class EventStore:
    """Both ports of the feedback loop over one folder. Safe between threads and processes.

    Args:
        folder: Made where it is missing.
        keys: Verify tokens.
        settings: Limits and times.
        clock: Wall time.

    Raises:
        StoreUnavailableError: The folder or its database cannot be used.
    """

    def __init__(
        self, folder: Path, keys: FeedbackKeys, settings: FeedbackSettings | None = None, clock: Clock | None = None
    ) -> None:
        self._folder = folder
        settings, clock = settings or FeedbackSettings(), clock or SystemClock()
        self._inbox = Inbox(folder, keys.tokens, settings, clock)
        self._recent = RecentReader(self._inbox.reader())
        self._sealer = Sealer(folder, self._inbox, settings, clock)

    def append(self, batch: Sequence[Event | Rejected]) -> list[Acknowledgement]:
        """See ``core.feedback_ports.EventSink``."""
        now_ms = self._inbox.now_ms()
        return self._inbox.append([Arrival(event, now_ms) for event in batch])

    def append_arrivals(self, arrivals: Sequence[Arrival]) -> list[Acknowledgement]:
        """The same for events that another server got earlier."""
        return self._inbox.append(arrivals)

    def newest(
        self, user_refs: Sequence[str], limit: int, types: Sequence[FeedbackType] = HISTORY_TYPES
    ) -> list[list[RecentEvent]]:
        """See ``core.feedback_ports.RecentEvents``."""
        return self._recent.newest(user_refs, limit, types)

    def seal(self) -> Sealed:
        """Seals what is ready; see ``feedback.seal.Sealer.run``."""
        return self._sealer.run()

    def seal_if_due(self) -> None:
        """Seals where enough waits, or something has waited for long; see ``Sealer.is_due``."""
        if self._sealer.is_due():
            self._sealer.run()

    def snapshot(self) -> Snapshot:
        """The dataset of everything that is sealed now."""
        with closing(self._inbox.reader()) as database:
            return take_snapshot(database)

    def refused(self) -> dict[str, int]:
        """Events in quarantine by reason, repetitions included."""
        with closing(self._inbox.reader()) as database:
            return quarantine_counts(database)

    def online(self, since_ms: int, settings: LabelSettings) -> list[OnlineMetrics]:
        """What users make of each release since a time; see ``feedback.online``."""
        with closing(self._inbox.reader()) as database:
            return online_metrics(self._folder, database, since_ms, settings)

    def verify(self, repair: bool = False) -> list[str]:
        """Checks the inbox and every segment; gives back complaints, none where all is well.

        Args:
            repair: Write damaged segments again from the inbox, where it still holds their events.
        """
        with closing(self._inbox.reader()) as database:
            complaints = [f"inbox: {row[0]}" for row in database.execute("PRAGMA quick_check") if row[0] != "ok"]
            segments = [row for (row,) in database.execute("SELECT sha256 FROM segments ORDER BY first_seq")]
        for sha256 in segments:
            try:
                check_segment(self._folder, sha256)
            except FeedbackError as error:
                if not (repair and self._sealer.repair(sha256)):
                    complaints.append(str(error))
        return complaints

    def quarantined(self, limit: int = 100) -> list[Refused]:
        """The newest refused events."""
        with closing(self._inbox.reader()) as database:
            return quarantined(database, limit)

    def histories(self, user_refs: Sequence[str] | None = None) -> Iterator[HistoryRow]:
        """Histories of these users, or of all."""
        wanted = "" if user_refs is None else "WHERE user_ref IN (SELECT value FROM json_each(?))"
        values = () if user_refs is None else (json.dumps(user_refs),)
        with closing(self._inbox.reader()) as database:
            yield from database.execute(f"SELECT * FROM recent {wanted} ORDER BY user_ref, seq", values)

    def history_rows(self, places: Sequence[tuple[str, int]]) -> list[HistoryRow]:
        """Those of these events (user_ref, seq) that stand in a history."""
        with closing(self._inbox.reader()) as database:
            return database.execute(
                "SELECT recent.* FROM json_each(?) AS asked JOIN recent ON recent.user_ref = asked.value ->> 0 "
                "AND recent.seq = asked.value ->> 1",
                (json.dumps(places),),
            ).fetchall()

    def forgotten(self) -> frozenset[str]:
        """Pseudonyms of everybody who was ever deleted."""
        with closing(self._inbox.reader()) as database:
            return frozenset(row for (row,) in database.execute("SELECT user_ref FROM forgotten"))

    def counts(self) -> dict[str, int]:
        """Events by where they are: sealed, in the inbox, in quarantine by reason."""
        with closing(self._inbox.reader()) as database:
            (sealed,) = database.execute("SELECT COALESCE(SUM(events), 0) FROM segments").fetchone()
            (segments,) = database.execute("SELECT COUNT(*) FROM segments").fetchone()
            (waiting,) = database.execute("SELECT COUNT(*) FROM events WHERE segment IS NULL").fetchone()
        refused = {f"quarantine {reason}": times for reason, times in self.refused().items()}
        return {"sealed": sealed, "segments": segments, "unsealed": waiting, **refused}

    def close(self) -> None:
        """Frees files."""
        self._recent.close()
        self._inbox.close()

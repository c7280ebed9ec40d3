"""The event store: inbox, histories, sealed segments and datasets of one folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

from core.errors import FeedbackError
from core.feedback import Event, FeedbackType, Rejected
from core.feedback_keys import FeedbackKeys
from core.feedback_ports import HISTORY_TYPES, Acknowledgement, Clock, RecentEvent, SystemClock
from core.sections import FeedbackSettings
from feedback.inbox import Inbox
from feedback.quarantine import Refused, quarantine_counts, quarantined
from feedback.recent import RecentReader
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

    def snapshot(self) -> Snapshot:
        """The dataset of everything that is sealed now."""
        with closing(self._inbox.reader()) as database:
            return take_snapshot(self._folder, database)

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

    def histories(self) -> Iterator[tuple[str, int, str, str, str, float | None, int]]:
        """All histories: user_ref, seq, key, type, item, value, event_time_ms."""
        with closing(self._inbox.reader()) as database:
            yield from database.execute("SELECT * FROM recent ORDER BY user_ref, seq")

    def counts(self) -> dict[str, int]:
        """Events by where they are: sealed, in the inbox, in quarantine by reason."""
        with closing(self._inbox.reader()) as database:
            (sealed,) = database.execute("SELECT COALESCE(SUM(events), 0) FROM segments").fetchone()
            (segments,) = database.execute("SELECT COUNT(*) FROM segments").fetchone()
            (waiting,) = database.execute("SELECT COUNT(*) FROM events WHERE segment IS NULL").fetchone()
            refused = {f"quarantine {reason}": times for reason, times in quarantine_counts(database).items()}
        return {"sealed": sealed, "segments": segments, "unsealed": waiting, **refused}

    def close(self) -> None:
        """Frees files."""
        self._recent.close()
        self._inbox.close()

"""What the gateway, the loop and the store agree on: where events go, and how a user's newest ones come back.

``feedback.store.EventStore`` is both ends in one folder, for the processes of one machine.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from core.feedback import Event, FeedbackType, Rejected
from core.feedback_reasons import Reason

HISTORY_TYPES: tuple[FeedbackType, ...] = ("click", "like", "purchase", "dwell")
"""Types that say what a user wants; the others do not enter a history unless asked for."""


class Clock(Protocol):
    """Time as an argument: wall time for what is written down, monotonic time for durations and leases."""

    def now_ms(self) -> int:
        """Milliseconds since the epoch, UTC; may jump."""

    def monotonic_s(self) -> float:
        """Seconds from some start; never goes back."""


class SystemClock:
    """The machine's clocks."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic_s(self) -> float:
        return time.monotonic()


@dataclass(frozen=True)
class Acknowledgement:
    """What became of one event.

    Attributes:
        key: ``Event.key``; the client's event id for a rejected one, where it had one.
        status: ``stored``: durable, this time. ``duplicate``: an equal event was durable before. ``quarantined``:
            durable in quarantine, and never a label; sending it again gives the same.
        reason: Why, for quarantined ones.
        seq: Server order of the stored event; None for quarantined ones and where a stream gives none yet.
    """

    key: str | None
    status: Literal["stored", "duplicate", "quarantined"]
    reason: Reason | None = None
    seq: int | None = None


class EventSink(Protocol):
    """Takes events. Safe to call from several threads and processes."""

    def append(self, batch: Sequence[Event | Rejected]) -> list[Acknowledgement]:
        """Stores a batch: all of it, durably, before this returns; or nothing, and it raises.

        Sending a batch again after an error, a time-out or a crash is always right: equal events are stored once.
        Impressions come from the gateway itself and are trusted; feedback is checked (token, times, caps).

        Args:
            batch: In order of arrival.

        Returns:
            One acknowledgement per event, in order.

        Raises:
            StoreUnavailableError: Disk full, locked for too long, broker away: nothing of the batch was acknowledged;
                answer 503 with ``retry_after_s``.
        """

    def close(self) -> None:
        """Releases files and connections; further calls fail."""


@dataclass(frozen=True)
class RecentEvent:
    """One event of a user's newest ones.

    Attributes:
        item: External item id.
        type: What the user did.
        value: Rating or amount, where there was one.
        event_time_ms: The client's clock.
        seq: Server order, by which they are sorted.
    """

    item: str
    type: FeedbackType
    value: float | None
    event_time_ms: int
    seq: int


class RecentEvents(Protocol):
    """A user's newest events, readable within a millisecond, the newest acknowledged one included."""

    def newest(
        self, user_refs: Sequence[str], limit: int, types: Sequence[FeedbackType] = HISTORY_TYPES
    ) -> list[list[RecentEvent]]:
        """The newest events per user, newest first by ``seq``; empty for unknown users.

        Events taken back by a correction, quarantined ones and those of deleted users are not among them.

        Args:
            user_refs: B pseudonyms.
            limit: Most events per user.
            types: Which types; at least one.

        Raises:
            StoreUnavailableError: Cannot be read now; go on without.
        """

    def close(self) -> None:
        """Releases files and connections."""

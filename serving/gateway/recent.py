"""A user's newest events laid over the release: what was liked joins the session, what was skipped stays away."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from core.errors import StoreUnavailableError
from core.feedback import FeedbackType
from core.feedback_ports import HISTORY_TYPES, RecentEvent, RecentEvents

UNWANTED: tuple[FeedbackType, ...] = ("dislike", "skip")


@dataclass(frozen=True)
class Overlay:
    """What a user did since the release was made.

    Attributes:
        session: Items wanted, oldest first.
        unwanted: Items that must not come back.
        known: False where the store could not be read in time.
    """

    session: tuple[str, ...] = ()
    unwanted: tuple[str, ...] = ()
    known: bool = True


def overlay_of(events: Sequence[RecentEvent], since_ms: int) -> Overlay:
    """The newest word on an item counts.

    Args:
        events: Newest first.
        since_ms: Events up to here are in the release's histories already; unwanted items stay unwanted.
    """
    last: dict[str, RecentEvent] = {}
    for event in events:
        last.setdefault(event.item, event)
    wanted = [e.item for e in last.values() if e.type in HISTORY_TYPES and e.event_time_ms > since_ms]
    return Overlay(tuple(reversed(wanted)), tuple(e.item for e in last.values() if e.type in UNWANTED))


class RecentReader:
    """Reads overlays beside the event loop, with a deadline.

    Args:
        recent: The store's newest events.
        limit: Most events per user.
        seconds: How long a read may take.
    """

    def __init__(self, recent: RecentEvents, limit: int, seconds: float) -> None:
        self._recent, self._limit, self._seconds = recent, limit, seconds
        self._pool = ThreadPoolExecutor(2, "recent")
        self._open = 0

    async def read(self, user_ref: str, since_ms: int) -> Overlay:
        """The overlay; an unknown one where the store is away, slow, or too many already wait for it."""
        if self._open >= 64:
            return Overlay(known=False)
        self._open += 1
        try:
            events = await asyncio.wait_for(
                asyncio.get_running_loop().run_in_executor(self._pool, self._newest, user_ref), self._seconds
            )
        except (TimeoutError, StoreUnavailableError):
            return Overlay(known=False)
        finally:
            self._open -= 1
        return overlay_of(events, since_ms)

    def _newest(self, user_ref: str) -> list[RecentEvent]:
        return self._recent.newest([user_ref], self._limit, (*HISTORY_TYPES, *UNWANTED))[0]

    def close(self) -> None:
        """Ends the threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)

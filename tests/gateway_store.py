"""An event store in memory that keeps the ports' promises, for tests of the gateway: feedback's own has its tests."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from core.errors import StoreUnavailableError
from core.feedback import Event, Feedback, FeedbackType, Impression, Rejected
from core.feedback_ports import HISTORY_TYPES, Acknowledgement, RecentEvent


class MemoryStore:
    """Both ports in one. ``away`` makes it unavailable; ``gate`` holds writers up."""

    def __init__(self) -> None:
        self.events: dict[str, Event] = {}
        self.rejected: list[Rejected] = []
        self.away = False
        self.gate = threading.Event()
        self.gate.set()
        self._lock = threading.Lock()

    @property
    def impressions(self) -> list[Impression]:
        return [event for event in list(self.events.values()) if isinstance(event, Impression)]

    def append(self, batch: Sequence[Event | Rejected]) -> list[Acknowledgement]:
        self.gate.wait()
        if self.away:
            raise StoreUnavailableError("the disk is full", retry_after_s=3)
        with self._lock:
            return [self._one(event) for event in batch]

    def _one(self, event: Event | Rejected) -> Acknowledgement:
        if isinstance(event, Rejected):
            self.rejected.append(event)
            return Acknowledgement(event.event_id, "quarantined", event.reason)
        if event.key in self.events:
            return Acknowledgement(event.key, "duplicate", seq=1)
        self.events[event.key] = event
        return Acknowledgement(event.key, "stored", seq=len(self.events))

    def newest(
        self, user_refs: Sequence[str], limit: int, types: Sequence[FeedbackType] = HISTORY_TYPES
    ) -> list[list[RecentEvent]]:
        if self.away:
            raise StoreUnavailableError("the disk is full")
        stored = list(enumerate(list(self.events.values())))
        return [
            [
                RecentEvent(event.item or "", event.type, event.value, event.event_time_ms, seq)
                for seq, event in reversed(stored)
                if isinstance(event, Feedback) and event.user_ref == ref and event.type in types
            ][:limit]
            for ref in user_refs
        ]

    def close(self) -> None:
        self.gate.set()

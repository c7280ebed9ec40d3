"""Events from users: judged one by one, stored in groups, acknowledged only after the commit."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pydantic import ValidationError

from core.errors import StoreUnavailableError
from core.feedback import MAX_EVENT_BYTES, Event, Feedback, Rejected
from core.feedback_keys import FeedbackKeys
from core.feedback_ports import Acknowledgement, EventSink
from core.feedback_reasons import Reason
from core.feedback_users import user_ref
from serving.gateway.metrics import Metrics
from serving.gateway.problems import Problem
from serving.gateway.wire import AcknowledgementOut, EventIn

MOST_AT_ONCE = 2_000
Waiting = tuple[list[Event | Rejected], "asyncio.Future[list[Acknowledgement]]"]


class EventIntake:
    """Batches of several requests share a commit: one is on its way while the next ones gather.

    For one event loop.

    Args:
        sink: The store.
        keys: For pseudonyms.
        metrics: Counts what became of events.
        most_waiting: Events that may wait; more are refused with 503.
        clock: Seconds since the epoch.
    """

    def __init__(
        self,
        sink: EventSink,
        keys: FeedbackKeys,
        metrics: Metrics,
        most_waiting: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._sink, self._keys, self._metrics = sink, keys, metrics
        self._most_waiting, self._clock = most_waiting, clock
        self._pool = ThreadPoolExecutor(1, "events")
        self._waiting: list[Waiting] = []
        self._count = 0
        self._writer: asyncio.Task[None] | None = None

    async def take(self, given: list[dict[str, Any]]) -> list[AcknowledgementOut]:
        """Stores a batch and says what became of each event, in order.

        Raises:
            Problem: 503, nothing was acknowledged: send it all again.
        """
        judged: list[Event | Rejected] = [self.judged(values) for values in given]
        acknowledged = await self._stored(judged)
        answer = []
        for event, entry in zip(judged, acknowledged, strict=True):
            kind = event.type if isinstance(event, Feedback) else "unknown"
            self._metrics.events.labels(kind, entry.status).inc()
            if entry.status == "stored" and isinstance(event, Feedback):
                shown = self._metrics.online.happened(event.request_id, event.item, event.type, event.dwell_ms)
                if shown is not None:
                    self._metrics.feedback.labels(shown.release, shown.arm, event.type).inc()
                if shown is not None and event.dwell_ms is not None:
                    self._metrics.dwell.labels(shown.release, shown.arm).observe(event.dwell_ms / 1000)
            detail = event.detail if isinstance(event, Rejected) else None
            answer.append(
                AcknowledgementOut(
                    event_id=entry.key, status=entry.status, detail=detail,
                    reason=None if entry.reason is None else str(entry.reason),
                )
            )  # fmt: skip
        return answer

    async def delete_user(self, user_id: str) -> Acknowledgement:
        """Asks the store to forget a user; durable when this returns. Raises Problem, 503."""
        event = Feedback(
            event_id=f"delete-{uuid.uuid4().hex}",
            type="delete_user",
            user_ref=user_ref(user_id, self._keys.pseudonym),
            event_time_ms=int(self._clock() * 1000),
        )
        return (await self._stored([event]))[0]

    def judged(self, values: dict[str, Any]) -> Feedback | Rejected:
        """One event as the store takes it; what is wrong with it goes into quarantine, without the user's own id."""
        user = values.get("user_id")
        reference = user_ref(user, self._keys.pseudonym) if isinstance(user, str) else None
        given_id = values.get("event_id")
        try:
            event = EventIn.model_validate(values)
            return Feedback(
                event_id=event.event_id, type=event.type, user_ref=user_ref(event.user_id, self._keys.pseudonym),
                event_time_ms=event.event_time_ms, request_id=event.request_id, token=event.token,
                item=event.item_id, position=event.position, value=event.value, dwell_ms=event.dwell_ms,
                corrects=event.corrects, session=event.session,
            )  # fmt: skip
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False, include_context=False)[0]
            detail = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"[:500]
        without = {key: value for key, value in values.items() if key != "user_id"}
        payload = json.dumps(without).encode()[:MAX_EVENT_BYTES]
        named = given_id if isinstance(given_id, str) and len(given_id) <= 128 and given_id.isascii() else None
        return Rejected(payload, Reason.SCHEMA, ascii(detail)[1:-1], named, reference)

    async def close(self) -> None:
        """Waits for what is on its way."""
        if self._writer is not None:
            await asyncio.gather(self._writer, return_exceptions=True)
        self._pool.shutdown(wait=True)

    async def _stored(self, batch: list[Event | Rejected]) -> list[Acknowledgement]:
        if self._count + len(batch) > self._most_waiting:
            raise Problem(503, "too many events wait", retry_after_s=1, code="busy")
        done: asyncio.Future[list[Acknowledgement]] = asyncio.get_running_loop().create_future()
        self._waiting.append((batch, done))
        self._count += len(batch)
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write())
        try:
            return await asyncio.shield(done)
        except StoreUnavailableError as error:
            raise Problem(503, "events cannot be stored now", retry_after_s=error.retry_after_s, code="store") from None

    async def _write(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            group: list[Waiting] = []
            size = 0
            while self._waiting and (not group or size + len(self._waiting[0][0]) <= MOST_AT_ONCE):
                group.append(self._waiting.pop(0))
                size += len(group[-1][0])
            together = [event for batch, _ in group for event in batch]
            try:
                acknowledged = await loop.run_in_executor(self._pool, self._sink.append, together)
            except Exception as error:  # whoever waits must hear of it
                for _, done in group:
                    if not done.done():
                        done.set_exception(error)
                        done.exception()  # a client that left does not ask for it
                continue
            finally:
                self._count -= size
            at = 0
            for batch, done in group:
                if not done.done():
                    done.set_result(acknowledged[at : at + len(batch)])
                at += len(batch)

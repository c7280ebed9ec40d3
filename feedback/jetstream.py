"""Events over NATS JetStream: gateways on many machines publish, one ingester stores.

The broker acknowledges what is in its file store and drops copies by message id within ``DUPLICATE_SECONDS``; the
inbox behind it knows ids for good. JetStream syncs its files every two minutes unless the server is told
``sync_interval: always``; until then a power failure, not a crash, may lose what was acknowledged.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

import nats
import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, StreamConfig

from core.errors import StoreUnavailableError
from core.feedback import Event, Feedback, Rejected
from core.feedback_ports import Acknowledgement, Clock
from core.feedback_tokens import TokenKeys
from core.sections import FeedbackSettings
from feedback.judge import judge
from feedback.redis_histories import RedisHistories
from feedback.store import EventStore
from feedback.wire import Arrival, message_id, pack, unpack

STREAM, SUBJECT, DURABLE = "conch-events", "conch.events", "inbox"
DUPLICATE_SECONDS = 600
MAX_AGE_SECONDS = 14 * 86_400
AT_ONCE = 1_000
Result = TypeVar("Result")


class Connection:
    """A connection to the broker on an event loop of its own, for callers that are not asynchronous.

    Args:
        url: ``nats://host:port``.
        seconds: How long a call may take.
    """

    def __init__(self, url: str, seconds: float) -> None:
        self._url, self._seconds = url, seconds
        self._client: Client | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="nats", daemon=True)
        self._thread.start()

    def call(self, work: Coroutine[Any, Any, Result], seconds: float | None = None) -> Result:
        """Runs a coroutine on the loop. Raises StoreUnavailableError where the broker is away or slow."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(seconds or self._seconds)
        except (nats.errors.Error, TimeoutError, OSError) as error:
            future.cancel()
            raise StoreUnavailableError(
                "the broker cannot be used now", where=self._url, found=f"{type(error).__name__}: {error}",
                next_step="start or restart the NATS server, with JetStream on (-js)", retry_after_s=2,
            ) from None  # fmt: skip

    async def stream(self) -> JetStreamContext:
        """The context, connected, with the stream made where it is missing."""
        if self._client is None or not self._client.is_connected:
            if self._client is not None:
                await self._client.close()
            self._client = await nats.connect(
                self._url, connect_timeout=self._seconds, allow_reconnect=False, error_cb=_ignore
            )
            context = self._client.jetstream(timeout=self._seconds)
            config = StreamConfig(
                name=STREAM, subjects=[SUBJECT], duplicate_window=DUPLICATE_SECONDS, max_age=MAX_AGE_SECONDS
            )
            try:
                await context.stream_info(STREAM)
            except nats.js.errors.NotFoundError:
                await context.add_stream(config)
        return self._client.jetstream(timeout=self._seconds)

    def close(self) -> None:
        """Ends connection, loop and thread."""
        if self._client is not None:
            asyncio.run_coroutine_threadsafe(self._client.close(), self._loop).result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()


class JetStreamSink:
    """The gateway's end: acknowledged when the broker has it. Safe between threads.

    Args:
        url: Of the broker.
        tokens: Keys of impression tokens.
        settings: Limits.
        clock: Wall time.
        seconds: How long the broker may take.
    """

    def __init__(
        self, url: str, tokens: TokenKeys, settings: FeedbackSettings, clock: Clock, seconds: float = 2.0
    ) -> None:
        self._connection = Connection(url, seconds)
        self._tokens, self._settings, self._clock = tokens, settings, clock

    def append(self, batch: Sequence[Event | Rejected]) -> list[Acknowledgement]:
        """See ``core.feedback_ports.EventSink``. ``seq`` is None: the inbox gives it later."""
        now_ms = self._clock.now_ms()
        return self.append_arrivals([Arrival(event, now_ms) for event in batch])

    def append_arrivals(self, arrivals: Sequence[Arrival]) -> list[Acknowledgement]:
        """Publishes all; what is refused is published too: the inbox keeps the quarantine."""
        copies = self._connection.call(self._publish(arrivals))
        told = []
        for arrival, is_copy in zip(arrivals, copies, strict=True):
            verdict = judge(arrival.event, arrival.arrived_ms, self._tokens, self._settings)
            if verdict.reason is not None:
                told.append(Acknowledgement(verdict.key, "quarantined", verdict.reason))
            else:
                told.append(Acknowledgement(verdict.key, "duplicate" if is_copy else "stored"))
        return told

    def close(self) -> None:
        """Ends the connection."""
        self._connection.close()

    async def _publish(self, arrivals: Sequence[Arrival]) -> list[bool]:
        context = await self._connection.stream()
        waiting = [
            await context.publish_async(
                SUBJECT, pack(arrival), headers={"Nats-Msg-Id": message_id(arrival.event)}
            )
            for arrival in arrivals
        ]  # fmt: skip
        return [bool((await ack).duplicate) for ack in waiting]


class Ingester:
    """From the broker into the inbox, and into Redis where histories are read there.

    A message is acknowledged after the commit: a crash in between brings it again, and the inbox knows it.

    Args:
        url: Of the broker.
        store: Where events go.
        histories: What gateways read.
        seconds: How long the broker may take.
        redeliver_s: Messages that are not acknowledged after this come again.
    """

    def __init__(
        self,
        url: str,
        store: EventStore,
        histories: RedisHistories,
        seconds: float = 2.0,
        redeliver_s: float = 30.0,
    ) -> None:
        self._redeliver_s = redeliver_s
        self._connection = Connection(url, seconds)
        self._store, self._histories, self._seconds = store, histories, seconds
        self._subscription: JetStreamContext.PullSubscription | None = None

    def step(self, wait_s: float = 1.0) -> int:
        """Stores what the broker has, at most ``AT_ONCE`` messages; gives back how many.

        Args:
            wait_s: How long to wait for the first one.

        Raises:
            StoreUnavailableError: Broker, inbox or Redis is away: the messages come again.
        """
        try:
            messages = self._connection.call(self._fetch(wait_s), wait_s + self._seconds)
            if messages:
                arrivals = [unpack(message.data) for message in messages]
                told = self._store.append_arrivals(arrivals)
                self._project(arrivals, told)
                self._connection.call(self._acknowledge(messages))
        except StoreUnavailableError:
            self._subscription = None
            raise
        return len(messages)

    def close(self) -> None:
        """Ends the connection."""
        self._connection.close()

    def _project(self, arrivals: Sequence[Arrival], told: Sequence[Acknowledgement]) -> None:
        """Histories as the inbox has them now: plain new events one by one, everything else by whole users."""
        fresh, whole = [], set()
        for arrival, entry in zip(arrivals, told, strict=True):
            event = arrival.event
            if not isinstance(event, Feedback) or entry.seq is None:
                continue
            if entry.status == "stored" and event.item is not None:
                fresh.append((event.user_ref, entry.seq))
            else:  # a correction, a deletion, or a message that came again
                whole.add(event.user_ref)
        self._histories.add(self._store.history_rows(fresh))
        self._histories.forget(whole)
        self._histories.add(self._store.histories(sorted(whole)))

    async def _fetch(self, wait_s: float) -> list[Any]:
        context = await self._connection.stream()
        if self._subscription is None:
            config = ConsumerConfig(
                ack_policy=AckPolicy.EXPLICIT, ack_wait=self._redeliver_s, max_ack_pending=10 * AT_ONCE
            )
            self._subscription = await context.pull_subscribe(SUBJECT, DURABLE, STREAM, config)
        try:
            return list(await self._subscription.fetch(AT_ONCE, timeout=wait_s))
        except nats.errors.TimeoutError:
            return []

    async def _acknowledge(self, messages: Sequence[Any]) -> None:
        for message in messages:
            await message.ack()


async def _ignore(_: Exception) -> None:
    """Errors reach the caller through its call."""

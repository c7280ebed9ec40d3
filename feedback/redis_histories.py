"""Users' newest events in Redis: what gateways on many machines read.

A copy of the inbox's histories, written by the ingester after the commit and made again from the event store where it
is lost. Per user: ``conch:h:<user>``, a sorted set by ``seq``; ``conch:c:<user>``, ids taken back; ``conch:d:<user>``,
the ``seq`` up to which the user was deleted.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import redis

from core.errors import StoreUnavailableError
from core.feedback import Event, Feedback, FeedbackType, Rejected
from core.feedback_ports import HISTORY_TYPES, Acknowledgement, RecentEvent

KEPT = 1_000
"""Newest events of a user."""
PAGE = 200


class RedisHistories:
    """Reads and writes histories. Safe between threads.

    Args:
        url: ``redis://host:port/0``.
        retention_days: Histories without an event for this long expire.
        seconds: How long Redis may take.
    """

    def __init__(self, url: str, retention_days: float, seconds: float = 0.5) -> None:
        self._url, self._retention_s = url, round(retention_days * 86_400)
        self._redis = redis.Redis.from_url(
            url, socket_timeout=seconds, socket_connect_timeout=seconds, decode_responses=True
        )

    def write(self, events: Sequence[Event | Rejected], told: Sequence[Acknowledgement]) -> None:
        """Takes over what the inbox acknowledged; the same again changes nothing.

        Args:
            events: A batch.
            told: Its acknowledgements by the inbox.

        Raises:
            StoreUnavailableError: Redis is away.
        """
        stored = [
            (event, entry.seq)
            for event, entry in zip(events, told, strict=True)
            if isinstance(event, Feedback) and entry.status != "quarantined" and entry.seq is not None
        ]
        if not stored:
            return
        try:
            users = sorted({event.user_ref for event, _ in stored})
            deleted = dict(zip(users, self._redis.mget([f"conch:d:{user}" for user in users]), strict=True))
            pipeline = self._redis.pipeline(transaction=True)
            for event, seq in stored:
                if seq > int(deleted[event.user_ref] or 0):
                    self._one(pipeline, event, seq)
                    if event.type == "delete_user":
                        deleted[event.user_ref] = str(seq)
            for user in users:
                pipeline.zremrangebyrank(f"conch:h:{user}", 0, -KEPT - 1)
                pipeline.expire(f"conch:h:{user}", self._retention_s)
                pipeline.expire(f"conch:c:{user}", self._retention_s)
            pipeline.execute()
        except redis.RedisError as error:
            raise self._away(error) from None

    def restore(self, rows: Iterable[tuple[str, int, str, str, str, float | None, int]]) -> int:
        """Writes histories that were lost; gives back how many events.

        Args:
            rows: user_ref, seq, key, type, item, value, event_time_ms: ``EventStore.histories``.

        Raises:
            StoreUnavailableError: Redis is away.
        """
        written = 0
        try:
            for page in _batched(rows, PAGE):
                pipeline = self._redis.pipeline(transaction=False)
                for user, seq, key, kind, item, value, time_ms in page:
                    pipeline.zadd(f"conch:h:{user}", {_member(key, item, kind, value, time_ms): seq})
                    pipeline.expire(f"conch:h:{user}", self._retention_s)
                pipeline.execute()
                written += len(page)
        except redis.RedisError as error:
            raise self._away(error) from None
        return written

    def newest(
        self, user_refs: Sequence[str], limit: int, types: Sequence[FeedbackType] = HISTORY_TYPES
    ) -> list[list[RecentEvent]]:
        """See ``core.feedback_ports.RecentEvents``."""
        try:
            pipeline = self._redis.pipeline(transaction=False)
            for user in user_refs:
                pipeline.zrevrange(f"conch:h:{user}", 0, PAGE - 1, withscores=True)
                pipeline.smembers(f"conch:c:{user}")
            answers = pipeline.execute()
            found = []
            for user, rows, taken_back in zip(user_refs, answers[::2], answers[1::2], strict=True):
                kept = _chosen(rows, taken_back, types)
                if len(kept) < limit and len(rows) == PAGE:
                    rest = self._redis.zrevrange(f"conch:h:{user}", PAGE, KEPT - 1, withscores=True)
                    kept += _chosen(rest, taken_back, types)
                found.append(kept[:limit])
        except redis.RedisError as error:
            raise self._away(error) from None
        return found

    def close(self) -> None:
        """Frees connections."""
        self._redis.close()

    def _one(self, pipeline: redis.client.Pipeline, event: Feedback, seq: int) -> None:
        history, corrections = f"conch:h:{event.user_ref}", f"conch:c:{event.user_ref}"
        if event.type == "delete_user":
            pipeline.delete(history, corrections)
            pipeline.set(f"conch:d:{event.user_ref}", seq, ex=self._retention_s)
        elif event.corrects is not None:
            pipeline.sadd(corrections, event.corrects)
        elif event.item is not None:
            member = _member(event.key, event.item, event.type, event.value, event.event_time_ms)
            pipeline.zadd(history, {member: seq})

    def _away(self, error: Exception) -> StoreUnavailableError:
        return StoreUnavailableError(
            "histories cannot be reached now", where=self._url, found=f"{type(error).__name__}: {error}",
            next_step="start or restart Redis",
        )  # fmt: skip


def _member(key: str, item: str, kind: str, value: float | None, time_ms: int) -> str:
    return json.dumps([key, item, kind, value, time_ms], separators=(",", ":"))


def _batched(rows: Iterable[Any], size: int) -> Iterator[list[Any]]:
    iterator = iter(rows)
    while page := list(islice(iterator, size)):
        yield page


def _chosen(rows: Any, taken_back: set[str], types: Sequence[FeedbackType]) -> list[RecentEvent]:
    read = [(json.loads(member), int(seq)) for member, seq in rows]
    return [
        RecentEvent(item, kind, value, time_ms, seq)
        for (key, item, kind, value, time_ms), seq in read
        if kind in types and key not in taken_back
    ]

"""Users' newest events in Redis: what gateways on many machines read.

A copy of the inbox's histories, made by the ingester after the commit and made again from there where it is lost. What
counts is decided by the inbox alone; here is one sorted set by ``seq`` per user, ``conch:h:<user>``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import redis

from core.errors import StoreUnavailableError
from core.feedback import FeedbackType
from core.feedback_ports import HISTORY_TYPES, RecentEvent
from feedback.recent import HistoryRow

KEPT = 1_000
"""Newest events of a user."""
PAGE = 200


class RedisHistories:
    """Reads and writes histories. Safe between threads; one process writes.

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

    def add(self, rows: Iterable[HistoryRow]) -> int:
        """Adds events, and gives back how many; the same again changes nothing.

        Raises:
            StoreUnavailableError: Redis is away.
        """
        added = 0
        for page in _pages(rows):
            pipeline = self._redis.pipeline(transaction=False)
            for user, seq, *told in page:
                pipeline.zadd(_key(user), {json.dumps(told, separators=(",", ":")): seq})
            for user in {row[0] for row in page}:
                pipeline.zremrangebyrank(_key(user), 0, -KEPT - 1)
                pipeline.expire(_key(user), self._retention_s)
            self._run(pipeline)
            added += len(page)
        return added

    def forget(self, user_refs: Iterable[str]) -> None:
        """Removes the histories of users. Raises StoreUnavailableError where Redis is away."""
        pipeline = self._redis.pipeline(transaction=False)
        for user in user_refs:
            pipeline.delete(_key(user))
        self._run(pipeline)

    def newest(
        self, user_refs: Sequence[str], limit: int, types: Sequence[FeedbackType] = HISTORY_TYPES
    ) -> list[list[RecentEvent]]:
        """See ``core.feedback_ports.RecentEvents``."""
        pipeline = self._redis.pipeline(transaction=False)
        for user in user_refs:
            pipeline.zrevrange(_key(user), 0, PAGE - 1, withscores=True)
        found = []
        for user, rows in zip(user_refs, self._run(pipeline), strict=True):
            kept = _chosen(rows, types)
            if len(kept) < limit and len(rows) == PAGE:
                rest = self._redis.pipeline(transaction=False).zrevrange(_key(user), PAGE, KEPT - 1, withscores=True)
                kept += _chosen(self._run(rest)[0], types)
            found.append(kept[:limit])
        return found

    def close(self) -> None:
        """Frees connections."""
        self._redis.close()

    def _run(self, pipeline: Any) -> list[Any]:
        try:
            return list(pipeline.execute())
        except redis.RedisError as error:
            raise StoreUnavailableError(
                "histories cannot be reached now", where=self._url, found=f"{type(error).__name__}: {error}",
                next_step="start or restart Redis",
            ) from None  # fmt: skip


def _key(user_ref: str) -> str:
    return f"conch:h:{user_ref}"


def _pages(rows: Iterable[HistoryRow]) -> Iterator[list[HistoryRow]]:
    iterator = iter(rows)
    while page := list(islice(iterator, PAGE)):
        yield page


def _chosen(rows: Sequence[tuple[str, float]], types: Sequence[FeedbackType]) -> list[RecentEvent]:
    read = [(json.loads(member), int(seq)) for member, seq in rows]
    return [
        RecentEvent(item, kind, value, time_ms, seq) for (_, kind, item, value, time_ms), seq in read if kind in types
    ]

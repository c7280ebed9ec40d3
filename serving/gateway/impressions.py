"""Impressions on their way to the store: off the request's path, bounded, every lost one counted."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable

from pydantic import ValidationError

from core.errors import StoreUnavailableError
from core.feedback import Impression
from core.feedback_ports import EventSink
from serving.gateway.metrics import Metrics

MOST_AT_ONCE = 500
LONGEST_PAUSE_S = 5.0

Build = Callable[[], Impression]


class ImpressionLog:
    """One thread that builds impressions (propensities take a moment) and stores them in batches.

    Args:
        sink: Where they go.
        metrics: Counts stored, invalid and lost ones.
        waiting: How many may wait; more are lost and counted, never waited for.
    """

    def __init__(self, sink: EventSink, metrics: Metrics, waiting: int) -> None:
        self._sink, self._metrics = sink, metrics
        self._queue: queue.Queue[Build | None] = queue.Queue(waiting)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="impressions", daemon=True)
        self._thread.start()

    def put(self, build: Build) -> None:
        """Takes an impression; never blocks."""
        try:
            self._queue.put_nowait(build)
        except queue.Full:
            self._metrics.impressions.labels("lost").inc()
        self._metrics.impressions_waiting.set(self._queue.qsize())

    def close(self, seconds: float) -> int:
        """Stores what waits, for up to ``seconds``. Returns how many did not make it; they are counted as lost."""
        self._closing.set()
        deadline = time.monotonic() + seconds
        while self._thread.is_alive() and time.monotonic() < deadline:
            try:
                self._queue.put(None, timeout=0.05)
                break
            except queue.Full:
                continue
        self._thread.join(max(0.0, deadline - time.monotonic()))
        left = 0
        while not self._queue.empty():
            left += self._queue.get_nowait() is not None
        self._metrics.impressions.labels("lost").inc(left)
        return left

    def _run(self) -> None:
        while True:
            build = self._queue.get()
            if build is None:
                return
            builds = [build]
            last = False
            while len(builds) < MOST_AT_ONCE and not last:
                try:
                    more = self._queue.get_nowait()
                except queue.Empty:
                    break
                if more is None:
                    last = True
                else:
                    builds.append(more)
            self._store([made for made in map(self._built, builds) if made is not None])
            self._metrics.impressions_waiting.set(self._queue.qsize())
            if last:
                return

    def _built(self, build: Build) -> Impression | None:
        try:
            return build()
        except (ValidationError, ValueError, ArithmeticError):
            self._metrics.impressions.labels("invalid").inc()
            return None

    def _store(self, batch: list[Impression]) -> None:
        """Tries again while the store is away; requests do not notice, the queue's bound does."""
        pause = 0.1
        while batch:
            try:
                acknowledged = self._sink.append(batch)
            except StoreUnavailableError:
                self._metrics.impressions.labels("retried").inc(len(batch))
                if self._closing.wait(pause):
                    self._metrics.impressions.labels("lost").inc(len(batch))
                    return
                pause = min(LONGEST_PAUSE_S, pause * 2)
                continue
            for entry in acknowledged:
                self._metrics.impressions.labels(entry.status).inc()
            return

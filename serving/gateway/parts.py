"""What the pipeline passes into the gateway, and the gateway's living parts."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from core.feedback_keys import FeedbackKeys
from core.feedback_ports import EventSink, RecentEvents
from core.sections import GatewaySettings
from core.tensors import ENSEMBLE
from serving.gateway.admin import Operator
from serving.gateway.catalogue import Views
from serving.gateway.events import EventIntake
from serving.gateway.guard import Breaker
from serving.gateway.impressions import ImpressionLog
from serving.gateway.keys import ApiKeys, RateLimit
from serving.gateway.metrics import Metrics
from serving.gateway.probe import Probe, Restart
from serving.gateway.problems import Problem
from serving.gateway.recent import RecentReader
from serving.gateway.recommender import Parts, Recommender
from serving.gateway.replicas import Member, Replicas
from serving.gateway.upstream import Upstream
from serving.pointer import PointerReader, model_of

FLUSH_SECONDS = 5.0


@dataclass(frozen=True)
class Triton:
    """A server.

    Attributes:
        address: host:port of gRPC.
        secret: Gives the one for model control; "" where it may not be healed.
        restart: Restarts it; None where the gateway may not.
    """

    address: str
    secret: Callable[[], str] = str
    restart: Restart | None = None


@dataclass(frozen=True)
class Wiring:
    """What a gateway is made of.

    Attributes:
        settings: Its own.
        tritons: Servers of the same releases; at least one.
        repository: The live model repository.
        pointer: Path of serving.json.
        sink: Where events and impressions go.
        recent: Users' newest events.
        feedback_keys: Pseudonyms and tokens.
        api_keys: Who may ask.
        token_hours: How long an answer's token lives.
        operator: What the operator may do.
    """

    settings: GatewaySettings
    tritons: tuple[Triton, ...]
    repository: Path
    pointer: Path
    sink: EventSink
    recent: RecentEvents
    feedback_keys: FeedbackKeys
    api_keys: ApiKeys
    token_hours: float = 24.0
    operator: Operator = field(default_factory=Operator)


class Gateway:
    """The parts that live as long as the event loop: ``async with Gateway(wiring) as gateway``.

    The sink and the store of newest events belong to the caller, who closes them afterwards.
    """

    def __init__(self, wiring: Wiring) -> None:
        settings = wiring.settings
        self.wiring, self.settings = wiring, settings
        self.metrics = Metrics()
        self.draining = False
        self.active = 0
        """Recommendations and batches of events under way."""
        self.rates = RateLimit(settings.requests_per_second, settings.burst, time.monotonic)
        self.pointer = PointerReader(wiring.pointer)
        self.views = Views(wiring.repository)

    def check_room(self) -> None:
        """To be called before any work.

        Raises:
            Problem: 503, too many are at work: what waits in the event loop waits unseen, and all the longer.
        """
        if self.active >= self.settings.max_active:
            self.metrics.shed.labels("503").inc()
            raise Problem(503, "too many requests at once", code="crowded", retry_after_s=1)

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """Around the work for one request, from its body to its answer. Raises Problem, see ``check_room``."""
        self.check_room()
        self.active += 1
        try:
            yield
        finally:
            self.active -= 1

    def stable_model(self) -> str | None:
        """The ensemble that answers most users; None while nothing is installed."""
        pointer = self.pointer.current()
        if pointer is not None and self.views.get(pointer.stable) is not None:
            return model_of(pointer.stable)
        return ENSEMBLE.name if self.views.live() is not None else None

    async def __aenter__(self) -> Gateway:
        wiring, settings = self.wiring, self.settings
        self.replicas = Replicas([self._member(triton) for triton in wiring.tritons], self.metrics)
        self.recent = RecentReader(wiring.recent, settings.recent_events, settings.recent_ms / 1000)
        self.impressions = ImpressionLog(wiring.sink, self.metrics, settings.impressions_waiting)
        self.events = EventIntake(wiring.sink, wiring.feedback_keys, self.metrics, settings.events_waiting)
        parts = Parts(
            self.replicas, self.views, self.pointer, self.recent, self.impressions, self.metrics,
            wiring.feedback_keys, wiring.token_hours * 3600,
        )  # fmt: skip
        self.recommender = Recommender(parts, settings)
        await self.replicas.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.recommender.close()
        await self.events.close()
        await asyncio.to_thread(self.impressions.close, FLUSH_SECONDS)
        self.recent.close()
        await self.replicas.close()
        self.views.close()

    def _member(self, triton: Triton) -> Member:
        upstream = Upstream(triton.address, triton.secret)
        breaker = Breaker(self.settings.breaker_failures, self.settings.breaker_seconds, time.monotonic)
        probe = Probe(
            upstream, self.stable_model, self.wiring.repository, breaker, self.metrics, self.settings, triton.restart
        )
        return Member(upstream, breaker, probe)

"""The Tritons behind a gateway: a question goes to the one with least to do, and to the next where that fails."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass

from core.errors import RequestError
from serving.gateway.guard import Breaker
from serving.gateway.metrics import Metrics
from serving.gateway.probe import Probe
from serving.gateway.upstream import TritonFault, Upstream
from serving.messages import Recommendation, Request


@dataclass
class Member:
    """One Triton.

    Attributes:
        upstream: Connection.
        breaker: Opened by failures in a row, or by its probe.
        probe: Watches and heals it.
        in_flight: Questions that it has not answered yet.
    """

    upstream: Upstream
    breaker: Breaker
    probe: Probe
    in_flight: int = 0


class Replicas:
    """Tritons that serve the same releases, for one event loop.

    Args:
        members: At least one.
        metrics: Told of faults.
    """

    def __init__(self, members: Sequence[Member], metrics: Metrics) -> None:
        self.members = tuple(members)
        self._metrics = metrics
        metrics.ready.set_function(lambda: float(self.healthy))
        metrics.breaker.set_function(lambda: float(not self.is_open))
        for member in self.members:
            metrics.replica_ready.labels(member.upstream.address).set_function(
                lambda probe=member.probe: float(probe.healthy)  # type: ignore[misc]
            )

    @property
    def healthy(self) -> bool:
        """Whether any of them answered its last probe."""
        return any(member.probe.healthy for member in self.members)

    @property
    def is_open(self) -> bool:
        """Whether any of them is asked at all: its breaker is closed."""
        return any(member.breaker.state == "closed" for member in self.members)

    @property
    def last_fault(self) -> str | None:
        """What the probe of the first one that does not answer found."""
        return next((one.probe.last_fault for one in self.members if one.probe.last_fault is not None), None)

    async def ask(self, model: str, request: Request, seconds: float) -> Recommendation:
        """The answer of one ensemble, from whichever replica gives one in time.

        Raises:
            RequestError: The release refuses the request.
            TritonFault: No replica answered; the fault of the last one that was asked.
        """
        until = time.monotonic() + seconds
        fault = TritonFault("down", "every breaker is open")
        asked: set[int] = set()
        while (member := self._next(asked)) is not None:
            asked.add(id(member))
            member.in_flight += 1
            try:
                answer = await member.upstream.ask(model, request, until - time.monotonic())
            except RequestError:
                member.breaker.succeeded()
                raise
            except TritonFault as error:
                fault = error
                self._metrics.faults.labels(error.kind).inc()
                if error.kind != "missing":
                    member.breaker.failed()
                if error.kind == "slow":  # the time is up
                    break
            else:
                member.breaker.succeeded()
                return answer
            finally:
                member.in_flight -= 1
        if not asked:
            self._metrics.faults.labels("open").inc()
        raise fault

    async def is_ready(self, model: str, seconds: float) -> bool:
        """Whether a healthy replica says that the model is ready."""
        healthy = [member.upstream.is_ready(model, seconds) for member in self.members if member.probe.healthy]
        return any(await asyncio.gather(*healthy))

    async def start(self) -> None:
        """Probes each once, and from then on."""
        await asyncio.gather(*(member.probe.once() for member in self.members))
        self._probing = [asyncio.create_task(member.probe.run()) for member in self.members]

    async def close(self) -> None:
        """Ends probes and connections."""
        for task in self._probing:
            task.cancel()
        for task in self._probing:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        for member in self.members:
            await member.upstream.close()

    def _next(self, asked: set[int]) -> Member | None:
        """The member with least to do among those not asked yet, whose breaker lets a question pass."""
        waiting = sorted((one for one in self.members if id(one) not in asked), key=lambda one: one.in_flight)
        return next((member for member in waiting if member.breaker.lets_pass()), None)

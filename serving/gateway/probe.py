"""Watches Triton by real inferences, since its own health says ready over a dead python step, and heals such steps.

A dead stub is never restarted by Triton 2.51, and loading an unchanged model does nothing: its model.py is touched
first. Where that does not help, the owner of the server is asked to restart it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

from core.errors import RequestError
from core.sections import GatewaySettings
from serving.gateway.guard import Breaker
from serving.gateway.metrics import Metrics
from serving.gateway.upstream import TritonFault, Upstream
from serving.lint import CONFIG_FILE, read_config
from serving.messages import make_request
from serving.release import GRAPH_FILE, STEP_FILE, VERSION_NAME

PROBE_USER = "conch-probe"
LOAD_SECONDS = 20.0
DIAGNOSIS_SECONDS = 4.0
BETWEEN_HEALS_S = 2.0
NAMED = re.compile(r"(?:model|[Ss]tub process) '([A-Za-z0-9_.-]+?)_\d+_\d+'")
"""Instance names as Triton writes them: <model>_<group>_<number>."""
log = logging.getLogger("conch.gateway")

Restart = Callable[[], Awaitable[None]]


class Probe:
    """Asks every pause; ``healthy`` is what it last found.

    Args:
        upstream: Triton.
        model: Gives the ensemble to ask; None while nothing is installed.
        repository: The live repository, whose model.py are touched.
        breaker: Tripped and closed by what the probe finds.
        metrics: Told about it.
        settings: Pauses and deadlines.
        restart: Restarts Triton; None where the gateway may not.
    """

    def __init__(
        self,
        upstream: Upstream,
        model: Callable[[], str | None],
        repository: Path,
        breaker: Breaker,
        metrics: Metrics,
        settings: GatewaySettings,
        restart: Restart | None = None,
    ) -> None:
        self._upstream, self._model, self._repository = upstream, model, repository
        self._breaker, self._metrics, self._settings, self._restart = breaker, metrics, settings, restart
        self.healthy = False
        self.failures = 0
        self.last_fault: str | None = "not asked yet"
        self.seen_at: float | None = None
        """Monotonic time of the last good answer."""
        self._healed_at = -BETWEEN_HEALS_S

    async def run(self) -> None:
        """Probes until cancelled."""
        while True:
            await self.once()
            if not (self.healthy and self.failures):  # one slow answer may be load: ask again at once
                await asyncio.sleep(self._settings.probe_seconds)

    async def once(self) -> None:
        """One probe and what follows from it."""
        try:
            model = self._model()
            if model is None:
                raise TritonFault("missing", "no release is installed")
            # Triton says only after a second or two that a stub is dead: once unhealthy, wait for its word.
            seconds = self._settings.probe_deadline_seconds if self.healthy else DIAGNOSIS_SECONDS
            await self._upstream.ask(model, make_request([PROBE_USER], 1), seconds)
        except RequestError as error:
            self._failed(TritonFault("broken", str(error)))
        except TritonFault as fault:
            self._failed(fault)
            if fault.kind == "broken":
                await self._heal(fault)
            if self.failures >= self._settings.restart_after_failures and self._restart is not None:
                await self._ask_restart()
        else:
            self.healthy, self.failures, self.last_fault, self.seen_at = True, 0, None, time.monotonic()
            self._breaker.succeeded()

    def _failed(self, fault: TritonFault) -> None:
        self.failures += 1
        self.last_fault = fault.kind
        self._metrics.faults.labels(f"probe_{fault.kind}").inc()
        if fault.kind != "slow" or self.failures >= 2:  # one slow answer is load
            if self.healthy:
                log.warning("triton does not answer: %s", fault)
            self.healthy = False
            self._breaker.trip()

    async def _heal(self, fault: TritonFault) -> None:
        if time.monotonic() - self._healed_at < BETWEEN_HEALS_S:
            return
        self._healed_at = time.monotonic()
        named = set(NAMED.findall(fault.message)) if fault.is_dead_stub else set()
        for model in sorted(named & set(self._leaves())) or list(self._leaves()):
            try:
                touched = touch_versions(self._repository / model)
                if touched:
                    await self._upstream.load(model, LOAD_SECONDS)
                    self._metrics.heals.labels("loaded").inc()
                    log.warning("loaded %s again after: %s", model, fault.message[:200])
            except (TritonFault, OSError) as error:
                self._metrics.heals.labels("failed").inc()
                log.warning("cannot heal %s: %s", model, error)

    async def _ask_restart(self) -> None:
        self.failures = 0
        self._metrics.restarts.inc()
        log.error("triton is restarted")
        if self._restart is not None:
            with contextlib.suppress(OSError):
                await self._restart()

    def _leaves(self) -> Iterator[str]:
        for folder in sorted(self._repository.iterdir()):
            if (folder / CONFIG_FILE).is_file() and read_config(folder).platform != "ensemble":
                yield folder.name


def touch_versions(model: Path) -> int:
    """Gives the files that a model's versions are loaded from a new time: its next load is then a real one."""
    touched = 0
    for folder in model.iterdir():
        if VERSION_NAME.fullmatch(folder.name):
            for name in (STEP_FILE, GRAPH_FILE):
                if (folder / name).is_file():
                    os.utime(folder / name)
                    touched += 1
    return touched

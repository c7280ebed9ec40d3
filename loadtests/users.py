"""Locust users. `loadtests.run` starts Locust with this file; by hand:

CONCH_LOAD=plan.json .venv/bin/locust -f loadtests/users.py --headless
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import grpc.experimental.gevent
import numpy as np
from locust import LoadTestShape, User, events, task
from locust.contrib.fasthttp import FastHttpUser

from core.errors import ConchError
from loadtests.judge import Fate
from loadtests.plan import Plan
from loadtests.traffic import Traffic
from serving.client import ConchClient

grpc.experimental.gevent.init_gevent()  # gRPC's own threads would block gevent's loop otherwise

PLAN = Plan.read(Path(os.environ["CONCH_LOAD"]))
SCENARIO = PLAN.scenario
ROWS: list[tuple[float, float, Fate]] = []
"""Every request: seconds since the start, milliseconds, what became of it."""
BEGAN = time.perf_counter()
SEEDS = np.random.SeedSequence(PLAN.seed)


def keep(started: float, fate: Fate) -> float:
    """Writes one request down; gives back its milliseconds."""
    ms = (time.perf_counter() - started) * 1_000
    ROWS.append((started - BEGAN, ms, fate))
    return ms


class Asking(User):
    """What all users do: draw somebody, ask, pause."""

    abstract = True

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        self.rng = np.random.default_rng(SEEDS.spawn(1)[0])
        self.traffic = Traffic(PLAN.users, SCENARIO.skew, SCENARIO.new_user_share, self.rng)

    def wait_time(self) -> float:
        """Seconds until the next request."""
        return float(self.rng.exponential(SCENARIO.pause_seconds)) if SCENARIO.pause_seconds else 0.0


class TritonUser(Asking):
    """Asks Triton's ``recommend`` over gRPC or HTTP."""

    abstract = SCENARIO.protocol == "gateway"

    def on_start(self) -> None:
        protocol: Literal["grpc", "http"] = "http" if SCENARIO.protocol == "http" else "grpc"
        self.client = ConchClient(PLAN.address, protocol=protocol, deadline_seconds=PLAN.deadline_seconds)

    def on_stop(self) -> None:
        self.client.close()

    @task
    def recommend(self) -> None:
        users = self.traffic.draw(SCENARIO.batch)
        started = time.perf_counter()
        problem = None
        try:
            answers = self.client.recommend(users, k=SCENARIO.k)
            short = next((one.user_id for one in answers if not one.items), None)
            problem = f"an empty list for {short}" if short else None
        except ConchError as error:
            problem = error.what
        self.environment.events.request.fire(
            request_type=SCENARIO.protocol,
            name="recommend",
            response_time=keep(started, "answered" if problem is None else "failed"),
            response_length=0,
            exception=None if problem is None else RuntimeError(problem),
            context={},
        )


class GatewayUser(Asking, FastHttpUser):
    """Asks the gateway, clicks now and then, asks again."""

    abstract = SCENARIO.protocol != "gateway"
    host = f"http://{PLAN.address}"
    connection_timeout = PLAN.deadline_seconds
    network_timeout = PLAN.deadline_seconds

    @task
    def recommend(self) -> None:
        (user,) = self.traffic.draw(1)
        answer = self._post("/v1/recommendations", {"user_id": user, "k": SCENARIO.k}, _empty)
        if answer is not None and self.rng.random() < SCENARIO.click_share:
            place = int(self.rng.integers(len(answer["items"])))
            event = {
                "event_id": uuid.uuid4().hex,
                "type": "click",
                "user_id": user,
                "item_id": answer["items"][place]["item_id"],
                "position": place + 1,
                "request_id": answer["request_id"],
                "token": answer["token"],
                "event_time_ms": time.time_ns() // 1_000_000,
            }
            self._post("/v1/events", {"events": [event]}, _not_stored)

    def _post(
        self, path: str, body: dict[str, Any], wrong: Callable[[dict[str, Any]], str | None]
    ) -> dict[str, Any] | None:
        headers = {"Authorization": f"Bearer {PLAN.api_key}"} if PLAN.api_key else {}
        started = time.perf_counter()
        with self.client.post(path, json=body, headers=headers, catch_response=True) as response:
            answer: dict[str, Any] = response.json() if response.status_code == 200 else {}
            if response.status_code == 503 and "Retry-After" in response.headers:
                keep(started, "refused")
                response.success()  # the objectives say how many may be
                return None
            problem = wrong(answer) if answer else f"HTTP {response.status_code}"
            keep(started, "failed" if problem else "degraded" if answer.get("degraded") else "answered")
            if problem is not None:
                response.failure(problem)
        return None if problem is not None else answer


def _empty(answer: dict[str, Any]) -> str | None:
    return None if answer["items"] else f"an empty list for {answer['user_id']}"


def _not_stored(answer: dict[str, Any]) -> str | None:
    status = answer["acknowledgements"][0]["status"]
    return None if status == "stored" else f"event {status}"


class Stages(LoadTestShape):
    """The scenario's stages."""

    def tick(self) -> tuple[int, float] | None:
        """Users and spawn rate now; None ends the run."""
        stage = SCENARIO.stage_at(self.get_run_time())
        return None if stage is None else (stage.users, stage.spawn_rate)


@events.test_start.add_listener
def _begin(**_: Any) -> None:
    global BEGAN
    BEGAN = time.perf_counter()
    (PLAN.folder / "began").write_text(str(time.time()), encoding="ascii")


@events.quitting.add_listener
def _end(**_: Any) -> None:
    (PLAN.folder / "requests.json").write_text(json.dumps(ROWS), encoding="ascii")

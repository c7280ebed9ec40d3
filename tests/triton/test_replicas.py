"""Three Tritons behind one gateway: a killed one costs no answer, and a release reaches all of them or none."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx
import pytest

from core.errors import PublishError
from core.settings import Settings
from serving.control import Control, Replica, running_replicas
from serving.pointer import model_of
from serving.publish import Publisher
from serving.server import TritonServer
from tests.gateway_process import Running, running_gateway
from tests.sealed_release import seal_release
from tests.triton.conftest import settings_in

ASKERS = 4


@dataclass
class Asked:
    """What a load saw.

    Attributes:
        releases: Of every answer, in order.
        wrong: Answers that were none, or came from popularity.
    """

    releases: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class World:
    """Two servers of the machine, and a gateway with a third one."""

    settings: Settings
    gateway: Running
    beside: tuple[TritonServer, TritonServer]
    releases: tuple[Path, ...]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("replicas")
    settings = settings_in(folder)
    releases = tuple(seal_release(settings.paths.var, version).path for version in (1, 2, 3))
    Publisher(settings.paths.var, "test").activate(releases[0], reason="first")
    with (
        TritonServer(settings, free_ports=True) as one,
        TritonServer(settings, free_ports=True) as other,
        running_gateway(settings, folder) as gateway,
    ):
        assert len(running_replicas(settings.paths.var)) == 3
        yield World(settings, gateway, (one, other), releases)


@contextlib.contextmanager
def load(gateway: Running) -> Iterator[Asked]:
    """Asks all the time, with some users at once; at least a few questions before and after the block."""
    asked, stop = Asked(), threading.Event()

    def ask(number: int) -> None:
        with httpx.Client(base_url=gateway.url, timeout=30) as client:
            while not stop.is_set():
                reply = client.post("/v1/recommendations", json={"user_id": f"u{number}", "k": 5})
                answer = reply.json()
                if reply.status_code != 200 or answer["degraded"]:
                    asked.wrong.append(reply.text[:300])
                else:
                    asked.releases.append(answer["release"])

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(2, 2 + ASKERS)]
    for thread in threads:
        thread.start()
    try:
        wait_for(lambda: len(asked.releases) > 10)
        yield asked
        before = len(asked.releases)
        wait_for(lambda: len(asked.releases) > before + 10)
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def wait_for(what: object, seconds: float = 30) -> None:
    until = time.monotonic() + seconds
    while not what():  # type: ignore[operator]
        assert time.monotonic() < until, "did not come true in time"
        time.sleep(0.02)


def served_by(replica: Replica, release: str) -> bool:
    """Whether a server answers for a release."""
    with Control(replica) as control:
        return model_of(release) in control.pins()


def test_questions_are_shared_among_all_replicas(world: World) -> None:
    with load(world.gateway) as asked:
        wait_for(lambda: len(asked.releases) > 60)
    assert asked.wrong == []
    for server in world.beside:
        with httpx.Client() as client:
            page = client.get(f"http://{server_address(server, 'metrics')}/metrics").text
        count = next(
            line for line in page.splitlines()
            if line.startswith("nv_inference_request_success") and 'model="respond"' in line
        )  # fmt: skip
        assert float(count.rpartition(" ")[2]) > 10


def test_release_reaches_all_replicas_under_load_and_no_request_fails(world: World) -> None:
    with load(world.gateway) as asked:
        Publisher(world.settings.paths.var, "test").activate(world.releases[1], reason="second")
    assert asked.wrong == []
    assert set(asked.releases) == {"r000001", "r000002"}
    assert asked.releases[-1] == "r000002"
    assert all(served_by(replica, "r000002") for replica in running_replicas(world.settings.paths.var))


def test_replica_that_hangs_stops_the_release_on_all_of_them(world: World) -> None:
    replicas = running_replicas(world.settings.paths.var)
    hung = server_address(world.beside[1], "grpc")
    chosen = [replace(one, load_seconds=3.0 if one.address == hung else 60.0) for one in replicas]
    os.kill(world.beside[1].pid, signal.SIGSTOP)
    try:
        with pytest.raises(PublishError, match="did not go live; r000002 still serves"):
            Publisher(world.settings.paths.var, "test", chosen).activate(world.releases[2], reason="third")
    finally:
        os.kill(world.beside[1].pid, signal.SIGCONT)
    awake = [one for one in replicas if one.address != hung]
    assert not any(served_by(replica, "r000003") for replica in awake)
    assert all(served_by(replica, "r000002") for replica in awake)
    Publisher(world.settings.paths.var, "test").settle()
    assert not any(served_by(replica, "r000003") for replica in replicas)
    wait_for(lambda: ready_replicas(world.gateway) == 3)


def test_killed_replica_costs_no_answer(world: World) -> None:
    wait_for(lambda: ready_replicas(world.gateway) == 3)
    with load(world.gateway) as asked:
        os.kill(world.beside[0].pid, signal.SIGKILL)
        wait_for(lambda: ready_replicas(world.gateway) == 2)
    assert asked.wrong == []
    assert httpx.get(f"{world.gateway.url}/health/ready").status_code == 200


def ready_replicas(gateway: Running) -> int:
    page = httpx.get(f"{gateway.url}/metrics").text
    return sum(line.startswith("conch_replica_ready{") and line.endswith(" 1.0") for line in page.splitlines())


def server_address(server: TritonServer, what: str) -> str:
    return str(json.loads(server.state_file.read_bytes())[what])

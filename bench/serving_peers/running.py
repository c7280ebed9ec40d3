"""The peers as running servers."""

from __future__ import annotations

import contextlib
import json
import shlex
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import psutil

from bench.process import environment
from bench.serving_load import Asker, triton_asker, triton_body, web_asker, web_body
from core.errors import ServerError
from core.processes import ended, free_ports
from core.settings import ROOT, Settings
from serving.server import TritonServer

START_SECONDS = 120.0
STOP_SECONDS = 15.0
Users = Mapping[int, Sequence[Sequence[str]]]
"""Requests by users per request."""


@dataclass(frozen=True)
class Peer:
    """Something that answers.

    Attributes:
        name: In the result.
        asker: A new client of it, for requests of so many users.
        lists: Its lists of item ids for some users, for comparing.
        start_seconds: From its start to its first answer.
        pid: Of its first process.
        address: gRPC; Triton only.
    """

    name: str
    asker: Callable[[int], Asker]
    lists: Callable[[Sequence[str]], list[list[str]]]
    start_seconds: float
    pid: int
    address: str = ""

    @property
    def memory_mb(self) -> float:
        """Proportional memory of all its processes in MiB: what they share counts once."""
        family = [psutil.Process(self.pid)]
        if self.address:
            family += family[0].children(recursive=True)
        return round(sum(one.memory_full_info().pss for one in family) / 2**20, 1)


@contextlib.contextmanager
def triton_peer(name: str, settings: Settings, users: Users, k: int) -> Iterator[Peer]:
    """The live release in Triton on free ports."""
    bodies = {size: [triton_body(part, k) for part in parts] for size, parts in users.items()}
    started = time.perf_counter()
    with TritonServer(settings, free_ports=True) as server, server.client() as client:
        start = time.perf_counter() - started

        def lists(asked: Sequence[str]) -> list[list[str]]:
            return [[item.item_id for item in one.items] for one in client.recommend(asked, k)]

        address = server.address
        yield Peer(name, lambda size: triton_asker(address, bodies[size]), lists, start, server.pid, address)


@contextlib.contextmanager
def web_peer(name: str, arguments: Sequence[str], users: Users, k: int) -> Iterator[Peer]:
    """A process of ``bench.serving_peers.web``.

    Raises:
        ServerError: It does not start.
    """
    [port] = free_ports(1)
    command = [sys.executable, "-m", "bench.serving_peers.web", *arguments, "--port", str(port)]
    bodies = {size: [web_body(part, k) for part in parts] for size, parts in users.items()}

    def lists(asked: Sequence[str]) -> list[list[str]]:
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/recommend", web_body(asked, k), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=START_SECONDS) as response:
            return [[item["id"] for item in one["items"]] for one in json.load(response)]

    started = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, env=environment(1), stdin=subprocess.DEVNULL)
    with ended(process, STOP_SECONDS):
        while True:
            try:
                web_asker(port, bodies[1])(0)
                break
            except OSError:
                if process.poll() is not None or time.perf_counter() - started > START_SECONDS:
                    raise ServerError("the peer did not start", where=shlex.join(command)) from None
                time.sleep(0.02)
        start = time.perf_counter() - started
        yield Peer(name, lambda size: web_asker(port, bodies[size]), lists, start, process.pid)

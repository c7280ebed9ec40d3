"""Starts what a scenario asks, breaks it as the scenario says, and ends it."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from core.artifacts import load_artifact
from core.errors import ConchError, ServerError
from core.processes import LOOPBACK as HOST
from core.processes import ended, free_ports
from loadtests.scenario import Fault, Protocol
from serving.client import ConchClient

START_SECONDS = 120.0
STOP_SECONDS = 30.0
CONCH = Path(sys.executable).with_name("conch")
UNBLESSED = ("--unblessed", "--reason", "load test")
"""The load is what is tested, on whatever release there is."""
STUB = "triton_python_backend_stub"


@dataclass(frozen=True)
class Target:
    """What runs.

    Attributes:
        address: host:port that the users ask.
        options: Options for further `conch` commands on the same folders.
        state_file: ``server.json`` of the running Triton.
        pids: First processes of what runs.
        releases: What the next activations make live, one after the other.
    """

    address: str
    options: tuple[str, ...]
    state_file: Path
    pids: tuple[int, ...]
    releases: Iterator[str]

    def harm(self, fault: Fault) -> None:
        """Does what a fault says. Raises ServerError where it cannot."""
        if fault.action == "activate":
            _conch("activate", next(self.releases), *UNBLESSED, *self.options)
            return
        pid = int(json.loads(self.state_file.read_text(encoding="utf-8"))["pid"])
        if fault.action == "kill-server":
            os.kill(pid, signal.SIGKILL)
            return
        stubs = [child for child in psutil.Process(pid).children(recursive=True) if STUB in " ".join(child.cmdline())]
        named = [child for child in stubs if any("context" in part for part in child.cmdline())]
        if not named:
            raise ServerError("no python step to kill", where=str(pid), expected="a stub of the step context")
        named[0].kill()


@contextlib.contextmanager
def running(
    protocol: Protocol, var: Path, folder: Path, extra: Sequence[str], *, activates: bool = False
) -> Iterator[Target]:
    """Triton, and the gateway where the scenario asks it, on free loopback ports; ended at the end.

    Args:
        protocol: What the users speak.
        var: ``paths.var`` with a live repository.
        folder: Where logs go.
        extra: Further options of `conch`.
        activates: Two releases are wanted, the newer one live; a second one of the same graphs is made where there is
            but one.

    Raises:
        ServerError: It does not start, or a second release cannot be made.
    """
    http, grpc, metrics, gateway = free_ports(4)
    ports = {"serving.http_port": http, "serving.grpc_port": grpc, "serving.metrics_port": metrics}
    if protocol == "gateway":
        ports["gateway.port"] = gateway
    chosen = [f"paths.var={var}", *(f"{key}={port}" for key, port in ports.items())]
    options = (*extra, *(part for text in chosen for part in ("--set", text)))
    state_file = var / "run" / f"triton-{grpc}" / "server.json"
    with contextlib.ExitStack() as stack:
        triton = stack.enter_context(_child(["serve", *options], folder / "serve.log"))
        _wait(triton, folder / "serve.log", lambda: _triton_answers(f"{HOST}:{grpc}"))
        pids = [triton.pid]
        if protocol == "gateway":
            front = stack.enter_context(_child(["gateway", *options], folder / "gateway.log"))
            _wait(front, folder / "gateway.log", lambda: _is_ready(f"http://{HOST}:{gateway}/health/ready"))
            pids.append(front.pid)
        address = {"grpc": grpc, "http": http, "gateway": gateway}[protocol]
        releases = _two_releases(var, options) if activates else ()
        yield Target(f"{HOST}:{address}", options, state_file, tuple(pids), itertools.cycle(releases))


def _two_releases(var: Path, options: Sequence[str]) -> tuple[str, str]:
    """The two newest releases, the older one first; the newer one is live."""
    folder = var / "artifacts" / "release"
    if len(list(folder.glob("*/manifest.json"))) < 2:
        _conch("release", *options)
    older, newer = (
        str(load_artifact(path.parent).manifest.tensors["release_id"])
        for path in sorted(folder.glob("*/manifest.json"))[-2:]
    )
    _conch("activate", newer, *UNBLESSED, *options)
    return older, newer


def _conch(*arguments: str) -> None:
    done = subprocess.run([str(CONCH), *arguments], capture_output=True, text=True)
    if done.returncode:
        raise ServerError(f"conch {arguments[0]} failed", found=done.stderr[-500:])


@contextlib.contextmanager
def _child(arguments: Sequence[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [str(CONCH), *arguments], stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT
        )
        with ended(process, STOP_SECONDS):
            yield process


def _wait(process: subprocess.Popen[bytes], log: Path, answers: Callable[[], bool]) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        if process.poll() is not None:
            break
        if answers():
            return
        time.sleep(0.2)
    tail = log.read_text(encoding="utf-8", errors="replace")[-1_500:]
    raise ServerError("the server under test did not start", where=str(log), found=tail, next_step="make run")


def _triton_answers(address: str) -> bool:
    try:
        with ConchClient(address, deadline_seconds=2) as client:
            return bool(client.recommend(["loadtest-probe"], k=1))
    except ConchError:
        return False


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False

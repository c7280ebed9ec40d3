"""What the gateway costs over Triton's own gRPC: the same users, in turns, at concurrency 1 and 16.

    .venv/bin/python -m bench.gateway --set paths.var=var

Needs an installed release under ``paths.var``. Clients, gateway and Triton share this machine's cores. The gateway's
answers include the user's newest events, exploration, the impression's record and JSON; gRPC's are the ensemble alone.
"""

from __future__ import annotations

import http.client
import json
import shlex
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from bench.machine import measured_commit, shown, this_machine
from core.artifacts import write_json
from core.errors import ServerError
from core.processes import ended, free_ports
from core.settings import Settings
from pipeline.cli import guarded
from pipeline.options import ConfigOption, SetOption, settings_from
from serving.client import ConchClient
from serving.gateway.catalogue import open_view
from serving.release import live_repository
from serving.server import TritonServer

CONCURRENCIES = (1, 16)
START_SECONDS, DEADLINE_SECONDS, K = 60, 20, 10
Ask = Callable[[str], bool]
"""Asks for one user; whether the answer was degraded."""

app = typer.Typer(add_completion=False)


class Caller:
    """One thread's connections, kept open.

    Args:
        triton: host:port of gRPC.
        port: The gateway's.
    """

    def __init__(self, triton: str, port: int) -> None:
        self._grpc = ConchClient(triton, deadline_seconds=DEADLINE_SECONDS)
        self._http = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_SECONDS)
        self._http.connect()
        self._http.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def grpc(self, user: str) -> bool:
        """Through Triton alone; never degraded."""
        self._grpc.recommend([user], K)
        return False

    def gateway(self, user: str) -> bool:
        """Through the gateway. Raises ServerError where it does not answer 200."""
        body = json.dumps({"user_id": user, "k": K})
        self._http.request("POST", "/v1/recommendations", body, {"Content-Type": "application/json"})
        reply = self._http.getresponse()
        answer = json.loads(reply.read())
        if reply.status != 200:
            raise ServerError("the gateway refused", expected="200", found=f"{reply.status} {answer}")
        return bool(answer["degraded"])

    def close(self) -> None:
        """Both connections."""
        self._grpc.close()
        self._http.close()


def measure(callers: list[Caller], users: list[str], rounds: int) -> dict[str, Any]:
    """Rounds of blocks through both ways in turns, whoever goes first changing; every block asks all users once."""
    ways: dict[str, list[Ask]] = {
        "grpc": [caller.grpc for caller in callers],
        "gateway": [caller.gateway for caller in callers],
    }
    blocks: dict[str, list[np.ndarray]] = {way: [] for way in ways}
    degraded = 0
    with ThreadPoolExecutor(len(callers)) as pool:
        for number in range(-1, rounds):  # the first warms up
            for way in list(ways)[:: 1 if number % 2 else -1]:
                parts = [users[at :: len(callers)] for at in range(len(callers))]
                found = list(pool.map(_block, ways[way], parts))
                if number >= 0:
                    blocks[way].append(np.concatenate([times for times, _ in found]))
                    degraded += sum(count for _, count in found)
    medians = {way: np.array([np.median(times) for times in timed]) for way, timed in blocks.items()}
    everything = {way: np.concatenate(timed) for way, timed in blocks.items()}
    return {
        "requests_each": len(users) * rounds,
        "degraded": degraded,
        **{way: _summary(times, medians[way]) for way, times in everything.items()},
        "overhead_of_medians_ms": _spread(medians["gateway"] - medians["grpc"]),
    }


def _block(ask: Ask, users: list[str]) -> tuple[np.ndarray, int]:
    times, degraded = [], 0
    for user in users:
        started = time.perf_counter()
        degraded += ask(user)
        times.append((time.perf_counter() - started) * 1_000)
    return np.array(times), degraded


def _summary(times_ms: np.ndarray, medians_ms: np.ndarray) -> dict[str, Any]:
    return {
        "p50_ms": round(float(np.median(times_ms)), 3),
        "p99_ms": round(float(np.percentile(times_ms, 99)), 3),
        "round_medians_ms": _spread(medians_ms),
    }


def _spread(values: np.ndarray) -> dict[str, float]:
    low, middle, high = np.percentile(values, [25, 50, 75])
    return {"p25": round(float(low), 3), "median": round(float(middle), 3), "p75": round(float(high), 3)}


@contextmanager
def running_gateway(settings: Settings, server: TritonServer, log: Path) -> Iterator[int]:
    """`conch gateway` as a process before this Triton; gives its port. Raises ServerError where it does not start."""
    [port] = free_ports(1)
    options = {
        "paths.var": f'"{settings.paths.var}"', "gateway.port": port, "gateway.requests_per_second": 1e6,
        "gateway.burst": 1e6, "serving.grpc_port": server.address.rpartition(":")[2],
    }  # fmt: skip
    command = [str(Path(sys.executable).with_name("conch")), "gateway"]
    for name, value in options.items():
        command += ["--set", f"{name}={value}"]
    with log.open("wb") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT)
    with ended(process, START_SECONDS):
        until = time.monotonic() + START_SECONDS
        while not _ready(port):
            if process.poll() is not None or time.monotonic() > until:
                raise ServerError("the gateway does not start", found=log.read_text(encoding="utf-8")[-2_000:])
            time.sleep(0.2)
        yield port


def _ready(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/health/ready")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


@app.command()
def main(
    users: Annotated[int, typer.Option(min=16, help="Users of a block.")] = 64,
    rounds: Annotated[int, typer.Option(min=2, help="Blocks of each way and concurrency.")] = 20,
    out: Annotated[Path, typer.Option(help="Where the result goes.")] = Path("bench/results"),
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Measures and writes ``gateway.json``."""
    settings = settings_from(config, set_)
    view = open_view(live_repository(settings.paths.var), None)
    known = view.store.user_ids()
    view.store.close()
    chosen = [str(user) for user in np.random.default_rng(0).permutation(known)[:users]]
    rows: dict[str, Any] = {}
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        server = stack.enter_context(TritonServer(settings, free_ports=True))
        port = stack.enter_context(running_gateway(settings, server, Path(folder) / "gateway.log"))
        callers = [Caller(server.address, port) for _ in range(max(CONCURRENCIES))]
        for caller in callers:
            stack.callback(caller.close)
        for concurrency in CONCURRENCIES:
            rows[str(concurrency)] = measure(callers[:concurrency], chosen, rounds)
    result = {
        "title": "Gateway over Triton's gRPC, in turns, one user a request, k 10; clients on the same cores",
        "data": f"{view.info.release_id}, {view.info.n_items:,} items, {len(known):,} users",
        "concurrency": rows,
        "rounds": rounds,
        "machine": asdict(this_machine()),
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "commit": measured_commit(),
        "command": shlex.join(["python", "-m", "bench.gateway", *shown(sys.argv[1:])]),
    }
    write_json(out / "gateway.json", result)
    typer.echo(json.dumps(rows, indent=1))


if __name__ == "__main__":
    sys.exit(guarded(app))

"""Real servers of Debian packages on free loopback ports; each test module has its own."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from core.processes import free_ports


class Engine:
    """A server process that tests may kill, pause and start again.

    Args:
        command: Makes the command line from a port.
        log: Where its output goes.
    """

    def __init__(self, command: Callable[[int], list[str]], log: Path) -> None:
        [self.port], self._log = free_ports(1), log
        self._command = command(self.port)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.02)
        raise RuntimeError(f"{self._command[0]} does not listen: {self._log.read_text()[-500:]}")

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        assert self._process is not None
        self._process.wait(10)

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.terminate()
            self._process.wait(10)


def find(names: tuple[str, ...]) -> str | None:
    return next(
        (path for name in names if (path := shutil.which(name, path="/usr/bin:/usr/sbin:/usr/local/bin"))), None
    )


@pytest.fixture
def nats_server(tmp_path: Path, require: Callable[[str, bool, str], None]) -> Iterator[Engine]:
    program = find(("nats-server",))
    require("nats", program is not None, "apt-get install nats-server")
    pytest.importorskip("nats")
    engine = Engine(
        lambda port: [str(program), "-js", "-a", "127.0.0.1", "-p", str(port), "-sd", str(tmp_path / "jetstream")],
        tmp_path / "nats.log",
    )
    engine.start()
    yield engine
    engine.stop()


@pytest.fixture
def redis_server(tmp_path: Path, require: Callable[[str, bool, str], None]) -> Iterator[Engine]:
    program = find(("redis-server",))
    require("redis", program is not None, "apt-get install redis-server")
    pytest.importorskip("redis")
    engine = Engine(
        lambda port: [
            str(program), "--bind", "127.0.0.1", "--port", str(port), "--dir", str(tmp_path), "--save", "",
            "--appendonly", "no",
        ],
        tmp_path / "redis.log",
    )  # fmt: skip
    engine.start()
    yield engine
    engine.stop()

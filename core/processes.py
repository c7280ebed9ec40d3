"""Child processes and the loopback ports that they listen on."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Iterator

LOOPBACK = "127.0.0.1"


def free_ports(count: int, host: str = LOOPBACK) -> list[int]:
    """Ports that are free now, held together so that they differ."""
    with contextlib.ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind((host, 0))
        return [probe.getsockname()[1] for probe in probes]


def end(process: subprocess.Popen[bytes], seconds: float) -> int:
    """Asks a child to end, kills it after ``seconds``, and gives its exit code."""
    process.terminate()
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


@contextlib.contextmanager
def ended(process: subprocess.Popen[bytes], seconds: float) -> Iterator[subprocess.Popen[bytes]]:
    """A child that lives no longer than this context."""
    try:
        yield process
    finally:
        end(process, seconds)

"""`conch serve`: the live release on a local Triton, in the foreground."""

from __future__ import annotations

import signal
import socket
from types import FrameType

from core.sections import ServingSettings
from core.settings import Settings
from pipeline.console import Terminal
from serving.server import TritonServer


def serve_until_stopped(settings: Settings, terminal: Terminal) -> None:
    """Starts the server, says where it listens, and waits until Ctrl-C or SIGTERM arrives.

    Raises:
        ServerError: It does not start, or it dies.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        with TritonServer(settings.paths.repository, settings.serving, settings.paths.var) as server:
            serving = settings.serving
            terminal.say(
                f"serve: `recommend` answers (pid {server.pid}): gRPC {serving.host}:{serving.grpc_port}, "
                f"HTTP {serving.host}:{serving.http_port}, metrics {serving.host}:{serving.metrics_port}; "
                f"log {server.log}; Ctrl-C stops it"
            )
            server.wait()
    except KeyboardInterrupt:
        terminal.say("serve: stopped")


def with_free_ports(serving: ServingSettings) -> ServingSettings:
    """The same settings on three ports that nobody listens on at the moment."""
    probes = [socket.socket() for _ in range(3)]
    try:
        for probe in probes:
            probe.bind((serving.host, 0))
        names = ("http_port", "grpc_port", "metrics_port")
        ports = {name: probe.getsockname()[1] for name, probe in zip(names, probes, strict=True)}
    finally:
        for probe in probes:
            probe.close()
    return serving.model_copy(update=ports)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt

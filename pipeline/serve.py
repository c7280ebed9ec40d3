"""`conch serve`: the live release on a local Triton, in the foreground."""

from __future__ import annotations

import signal
from types import FrameType

from core.settings import Settings
from pipeline.console import Terminal
from serving.server import TritonServer


def serve_until_stopped(settings: Settings, terminal: Terminal) -> None:
    """Starts the server, says where it listens, and waits until Ctrl-C or SIGTERM arrives.

    Raises:
        ServerError: It does not start, or it dies.
    """
    interrupt_on_sigterm()
    try:
        with TritonServer(settings) as server:
            serving = settings.serving
            terminal.say(
                f"serve: `recommend` of {server.release_id} answers (pid {server.pid}): "
                f"gRPC {serving.host}:{serving.grpc_port}, HTTP {serving.host}:{serving.http_port}, "
                f"metrics {serving.host}:{serving.metrics_port}; log {server.log}; Ctrl-C stops it"
            )
            server.wait()
    except KeyboardInterrupt:
        terminal.say("serve: stopped")


def interrupt_on_sigterm() -> None:
    """Makes SIGTERM end this process as Ctrl-C does, so that what it started is stopped."""
    signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt

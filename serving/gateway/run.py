"""Runs the gateway under uvicorn, and drains it on SIGTERM."""

from __future__ import annotations

import asyncio
import ipaddress
import signal
from collections.abc import Callable
from types import FrameType

import uvicorn
import uvicorn.config

from core.errors import SettingsError
from core.sections import GatewaySettings
from serving.gateway.app import make_app
from serving.gateway.parts import Wiring
from serving.gateway.trace import log_as_json

IDLE_SECONDS = 20
DOORS = 32
"""libuv takes one new connection per descriptor and turn of the loop: with one descriptor and turns of 20 ms, the last
of 90 users who came at once waited 1.7 s to be let in (uvloop 0.23)."""


class DrainingServer(uvicorn.Server):
    """After a signal it says "not ready" and closes connections behind each answer; then it stops listening.

    A second signal ends it at once.
    """

    def __init__(self, config: uvicorn.Config, drain_seconds: float, drain: Callable[[], None]) -> None:
        super().__init__(config)
        self._drain_seconds, self._drain = drain_seconds, drain
        self._waiting: asyncio.TimerHandle | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """See uvicorn: called in the signal handler."""
        if self._waiting is not None or sig == signal.SIGINT:
            self._end(sig, frame)
            return
        self._drain()
        self._waiting = asyncio.get_running_loop().call_later(self._drain_seconds, self._end, sig, frame)

    def _end(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        # uvicorn would raise the signal once more when it is done, past everything that the caller has to close.
        self._captured_signals.clear()


def check_settings(settings: GatewaySettings) -> None:
    """Raises SettingsError where strangers could reach a gateway without keys, or TLS is half set."""
    try:
        loopback = settings.host == "localhost" or ipaddress.ip_address(settings.host).is_loopback
    except ValueError:
        loopback = False
    if not loopback and not settings.require_keys:
        raise SettingsError(
            "the gateway would answer anybody", where="gateway.host", expected="loopback, or gateway.require_keys=true",
            found=settings.host, next_step="conch gateway-key NAME, then --set gateway.require_keys=true",
        )  # fmt: skip
    if (settings.tls_certificate is None) != (settings.tls_key is None):
        raise SettingsError("TLS needs both files", where="gateway.tls_certificate, gateway.tls_key")


def run_gateway(wiring: Wiring, log_level: str = "warning") -> None:
    """Serves until a signal.

    Raises:
        SettingsError: See ``check_settings``; also a port that cannot be used.
    """
    settings = wiring.settings
    check_settings(settings)
    app = make_app(wiring)
    if settings.json_logs:
        log_as_json()
    config = uvicorn.Config(
        app,
        log_config=None if settings.json_logs else uvicorn.config.LOGGING_CONFIG,
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http="httptools",
        log_level=log_level,
        access_log=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=settings.stop_seconds,
        h11_max_incomplete_event_size=16 * 1024,
        ssl_certfile=settings.tls_certificate,
        ssl_keyfile=settings.tls_key,
        lifespan="on",
    )

    def drain() -> None:
        app.state.gateway.draining = True

    try:
        listening = config.bind_socket()
        doors = [listening, *(listening.dup() for _ in range(DOORS - 1))]
        DrainingServer(config, settings.drain_seconds, drain).run(doors)
    except SystemExit as end:
        if end.code:
            raise SettingsError(
                "the gateway cannot start", where=f"{settings.host}:{settings.port}", found="see the lines above",
                next_step="stop what listens there, or choose another port with --set gateway.port=…",
            ) from None  # fmt: skip

"""One Triton server as a context manager: refuses a used port, waits until it answers, notices death, always stops."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import IO

from core import processes
from core.errors import ConchError, ServerError
from core.settings import Settings
from core.tensors import ENSEMBLE
from serving.client import ConchClient
from serving.command import (
    Launch,
    container_launch,
    find_installed,
    has_docker,
    installed_launch,
    wheel_launch,
)
from serving.lint import lint_repository
from serving.live import prepare_start
from serving.orphans import SHARED_MEMORY, region_prefix, sweep
from serving.release import live_repository
from serving.statefile import state_file, write_state
from serving.wheel import build_backends, check_environment, check_platform, find_server

LOG_LINES_SHOWN = 25
POLL_SECONDS = 0.05
GROUP_EXIT_SECONDS = 3.0
PROBE_USER = "conch-probe"
LEASH = Path(__file__).with_name("leash.py")
PORTS = ("http_port", "grpc_port", "metrics_port")


class TritonServer:
    """A running server: ``with TritonServer(settings) as server: …``.

    Args:
        settings: The server's are under ``serving``; its log goes to ``paths.var``/log/triton.log.
        repository: The model repository to serve, never written to. None is the live one in ``paths.var``:
            it serves what the pointer says, whatever a crash left there.
        free_ports: Take any free ports instead of those in the settings; ``server.settings`` tells which.
    """

    def __init__(self, settings: Settings, repository: Path | None = None, *, free_ports: bool = False) -> None:
        serving = settings.serving
        if free_ports:
            ports = processes.free_ports(len(PORTS), serving.host)
            serving = serving.model_copy(update=dict(zip(PORTS, ports, strict=True)))
        var = settings.paths.var
        self.settings = settings.model_copy(update={"serving": serving})
        self.log = var / "log" / "triton.log"
        self._serving = serving
        self._repository = repository or live_repository(var)
        self._follows_pointer = repository is None
        self._models: tuple[str, ...] = ()
        self._run = var / "run" / f"triton-{serving.grpc_port}"
        self._shm_prefix = region_prefix(serving.grpc_port)
        self._release_id: str | None = None
        self._secret = secrets.token_hex(16)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Process id of tritonserver. Raises ServerError when it is not running."""
        if self._process is None:
            raise ServerError("the server is not running", next_step="enter the `with` block first")
        return self._process.pid

    @property
    def release_id(self) -> str:
        """The release that answered at the start. Raises ServerError before."""
        if self._release_id is None:
            raise ServerError("the server has not answered yet", next_step="enter the `with` block first")
        return self._release_id

    @property
    def address(self) -> str:
        """host:port of gRPC."""
        return f"{self._serving.host}:{self._serving.grpc_port}"

    @property
    def state_file(self) -> Path:
        """JSON with pid, ports and the secret for model control, readable by this user only, while the server runs."""
        return state_file(self.settings.paths.var, self._serving)

    def start(self) -> None:
        """Starts the server and returns when it has answered a recommendation.

        Raises:
            ReleaseError: The repository is not one that Triton can load.
            ServerError: A used port, a missing part, a server that died or that did not answer in time.
        """
        if self._follows_pointer:
            self._models = prepare_start(self.settings.paths.var)
        if not self._models:
            lint_repository(self._repository, self._serving)
        sweep()
        self._check_ports()
        launch = self._launch()
        self.log.parent.mkdir(parents=True, exist_ok=True)
        try:
            with self.log.open("wb") as log:
                self._process = _spawn(launch, log)
            write_state(self.settings.paths.var, self._serving, self.pid, self._secret, self._repository)
            self._wait_until_it_answers()
        except BaseException:
            self.stop()
            raise

    def wait(self) -> None:
        """Blocks until the server ends by itself. Raises ServerError then: nobody asked it to."""
        if self._process is not None:
            self._process.wait()
            raise self._death()

    def stop(self) -> None:
        """Ends the server and every process and shared memory that it started."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            processes.end(process, self._serving.stop_timeout_seconds)
        _kill_group(process.pid)  # python stubs outlive a server that was killed
        process.wait()
        for region in SHARED_MEMORY.glob(f"{self._shm_prefix}*"):
            region.unlink(missing_ok=True)
        self.state_file.unlink(missing_ok=True)

    def __enter__(self) -> TritonServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def client(self) -> ConchClient:
        """A client of this server."""
        return ConchClient(self._serving)

    def _launch(self) -> Launch:
        installed = find_installed()
        if installed is not None:
            return installed_launch(
                self._repository, self._serving, self._secret, installed, self._shm_prefix, self._models
            )
        try:
            check_platform()
        except ServerError:
            if not has_docker():
                raise
            return container_launch(self._repository, self._serving, self._secret, self._models)
        libpython = check_environment()
        files = find_server()
        self._run.mkdir(parents=True, exist_ok=True)
        backends = self._run / "backends"
        build_backends(backends, files)
        return wheel_launch(
            self._repository, self._serving, self._secret, files, backends, libpython, self._shm_prefix, self._models
        )

    def _check_ports(self) -> None:
        for key in PORTS:
            port = getattr(self._serving, key)
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port in TIME_WAIT is free
                try:
                    probe.bind((self._serving.host, port))
                except OSError as error:
                    raise ServerError(
                        f"port {port} cannot be used",
                        where=f"serving.{key} on {self._serving.host}",
                        found=str(error.strerror),
                        next_step=f"stop what listens there, or choose another with --set serving.{key}=…",
                    ) from None

    def _wait_until_it_answers(self) -> None:
        """Readiness alone proves nothing: a dead python stub says ready. One real answer does."""
        deadline = time.monotonic() + self._serving.start_timeout_seconds
        with self.client() as client:
            last: ConchError | None = None
            while time.monotonic() < deadline:
                if self._process is not None and self._process.poll() is not None:
                    raise self._death()
                if client.is_ready():
                    try:
                        (answer,) = client.recommend([PROBE_USER], k=1)
                        self._release_id = answer.release
                        return
                    except ConchError as error:
                        last = error
                time.sleep(POLL_SECONDS)
        raise ServerError(
            f"Triton did not answer within {self._serving.start_timeout_seconds:g} seconds",
            where=str(self.log),
            expected=f"model {ENSEMBLE.name} ready and one recommendation",
            found=f"{last.what if last else 'not ready'}; the log ends with\n{self._last_lines()}",
            next_step="read the log; a large release may need --set serving.start_timeout_seconds=…",
        )

    def _death(self) -> ServerError:
        code = self._process.returncode if self._process is not None else None
        return ServerError(
            "Triton ended by itself",
            where=str(self.log),
            found=f"exit status {code}; the log ends with\n{self._last_lines()}",
            next_step="read the log; `conch release` and `conch activate` make a fresh repository",
        )

    def _last_lines(self) -> str:
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        lines = [line for line in lines if line and line[0] not in "|+"]  # tables of options and statuses
        errors = [line for line in lines if line.startswith("E") or "rror" in line]
        shown = [*errors[-5:], "…", *lines[-LOG_LINES_SHOWN:]] if errors else lines[-LOG_LINES_SHOWN:]
        return "\n".join(f"    {line}" for line in shown)


def _spawn(launch: Launch, log: IO[bytes]) -> subprocess.Popen[bytes]:
    """Starts the server in a process group of its own, so that it can be ended with all its stubs.

    It also ends when the thread that starts it does.
    """
    leash = (sys.executable, "-I", "-S", str(LEASH), str(os.getpid())) if sys.platform == "linux" else ()
    return subprocess.Popen(
        (*leash, *launch.command),
        env=launch.environment,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def _kill_group(group: int) -> None:
    """Kills what is left of a process group and waits until it is gone."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
        for _ in range(int(GROUP_EXIT_SECONDS / POLL_SECONDS)):
            time.sleep(POLL_SECONDS)
            os.killpg(group, 0)

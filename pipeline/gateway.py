"""`conch gateway`: the gateway wired to the store, the keys and a Triton, its own where none runs."""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from core.errors import ServerError
from core.feedback_keys import keys_folder, load_keys
from core.settings import Settings
from pipeline.console import Terminal
from pipeline.events import open_ends
from pipeline.operator import Retraining, local_operator
from pipeline.serve import interrupt_on_sigterm
from serving.control import running_replicas
from serving.gateway.admin import Operator
from serving.gateway.keys import add_key, read_keys
from serving.gateway.parts import Triton, Wiring
from serving.gateway.run import check_settings, run_gateway
from serving.pointer import pointer_file
from serving.release import live_repository
from serving.server import TritonServer
from serving.statefile import state_file

OPERATOR_FILE = "operator.key"


def key_file(settings: Settings) -> Path:
    """Where the hashes of the API keys lie."""
    return settings.gateway.keys or keys_folder(settings.paths.var) / "api.keys"


def serve_gateway(settings: Settings, terminal: Terminal, operator: Operator | None = None) -> None:
    """Serves until Ctrl-C or SIGTERM.

    Args:
        settings: All of them.
        terminal: Told where it listens.
        operator: What the page's operator may do.

    Raises:
        ConchError: Triton does not start, keys or settings that cannot be used.
    """
    check_settings(settings.gateway)
    interrupt_on_sigterm()  # while Triton starts and stops; in between uvicorn drains
    var = settings.paths.var
    keys = load_keys(settings.feedback.keys or keys_folder(var))
    shown = f"operator's key in {_operator_key(settings)}" if settings.gateway.operator else "no operator"
    with ExitStack() as stack:
        tritons = _tritons(settings, stack)
        ends = open_ends(settings, stack)
        operator = operator or _operator(settings, stack)
        wiring = Wiring(
            settings.gateway, tritons, live_repository(var), pointer_file(var), ends.sink, ends.recent, keys,
            read_keys(key_file(settings)), settings.feedback.token_hours, operator,
        )  # fmt: skip
        terminal.say(
            f"gateway: http://{settings.gateway.host}:{settings.gateway.port}/ before Triton at "
            f"{', '.join(triton.address for triton in tritons)}; {shown}; Ctrl-C stops it"
        )
        run_gateway(wiring)
    terminal.say("gateway: stopped")


def _operator(settings: Settings, stack: ExitStack) -> Operator:
    if not settings.gateway.operator:
        return Operator()
    retraining = Retraining(settings)
    stack.callback(retraining.close)
    return local_operator(settings, retraining)


def _operator_key(settings: Settings) -> Path:
    """An operator's key for this machine, made at the first start and readable by its owner alone."""
    path = keys_folder(settings.paths.var) / OPERATOR_FILE
    if not path.exists():
        key = add_key(key_file(settings), "operator", ("recommend", "events", "operator"))
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(key + "\n")
    return path


def _tritons(settings: Settings, stack: ExitStack) -> tuple[Triton, ...]:
    """The server that the settings name, then all others on the live repository, then those of other machines."""
    var = settings.paths.var
    first = _triton(settings, stack)
    others = []
    for replica in running_replicas(var):
        if replica.address not in (None, first.address):
            port = int(str(replica.address).rpartition(":")[2])
            state = state_file(var, settings.serving.model_copy(update={"grpc_port": port}))
            others.append(Triton(str(replica.address), partial(_secret, state)))
    return (first, *others, *(Triton(address) for address in settings.gateway.replicas))


def _triton(settings: Settings, stack: ExitStack) -> Triton:
    """The one that runs, or one that ends with the gateway."""
    state = state_file(settings.paths.var, settings.serving)
    try:
        running = json.loads(state.read_bytes())
        os.kill(int(running["pid"]), 0)
        return Triton(str(running["grpc"]), partial(_secret, state))
    except (OSError, ValueError, KeyError):
        if not settings.gateway.starts_triton:
            raise ServerError(
                "no Triton runs", where=str(state), expected="one that another container started",
                next_step="look at its log; gateway.starts_triton=true starts one here",
            ) from None  # fmt: skip
        server = TritonServer(settings)
    stack.callback(server.stop)
    server.start()

    def again() -> None:
        server.stop()
        server.start()

    async def restart() -> None:
        await asyncio.to_thread(again)

    return Triton(server.address, partial(_secret, state), restart)


def _secret(state: Path) -> str:
    """For model control; "" while the server does not run. Read each time: a server that starts again has a new one."""
    try:
        return str(json.loads(state.read_bytes())["secret"])
    except (OSError, ValueError, KeyError):
        return ""

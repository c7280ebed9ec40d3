"""Model control of one Triton: over gRPC only (over HTTP a load stalls the traffic), always with a deadline."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import tritonclient.grpc as triton_grpc
from tritonclient.utils import InferenceServerException

from core.errors import PublishError
from core.processes import is_alive
from core.tensors import ENSEMBLE
from serving.command import GRPC_HEADER
from serving.messages import Recommendation, make_request, read_answer
from serving.release import live_repository
from serving.transport import inputs_of, outputs_of

LOAD_SECONDS = 60.0
ASK_SECONDS = 10.0


@dataclass(frozen=True)
class Replica:
    """One server and the repository that it reads.

    Attributes:
        repository: Its model repository; replicas may share one.
        address: host:port of gRPC; None is a repository without a server, served at the next start.
        secret: For model control.
        load_seconds: How long a load may take.
    """

    repository: Path
    address: str | None = None
    secret: str = ""
    load_seconds: float = LOAD_SECONDS

    @property
    def name(self) -> str:
        """For people."""
        return self.address or str(self.repository)


def running_replicas(var: Path) -> list[Replica]:
    """The servers that run on the live repository of ``paths.var``; that repository alone where none does."""
    repository = live_repository(var)
    found = []
    for file in sorted(var.glob("run/triton-*/server.json")):
        state = json.loads(file.read_bytes())
        if state.get("repository") == str(repository.resolve()) and is_alive(int(state["pid"])):
            found.append(Replica(repository, state["grpc"], state["secret"]))
    return found or [Replica(repository)]


class Control:
    """A connection to one server for its publisher: ``with Control(replica) as control: …``."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._headers = {GRPC_HEADER: replica.secret}
        self._triton = triton_grpc.InferenceServerClient(replica.address)

    def load(self, model: str) -> None:
        """Loads a model, or what its config now says. Raises PublishError where Triton cannot, or not in time."""
        self._call("load", model, self._triton.load_model, model, self._headers, timeout=self._replica.load_seconds)

    def unload(self, model: str) -> None:
        """Unloads a model. Raises PublishError."""
        self._call("unload", model, self._triton.unload_model, model, self._headers, timeout=self._replica.load_seconds)

    def states(self) -> dict[str, dict[int, str]]:
        """State of every version of every model that was loaded: ``READY``, ``UNAVAILABLE``, …"""
        index = self._call("index", "all models", self._triton.get_model_repository_index, self._headers)
        found: dict[str, dict[int, str]] = {}
        for entry in index.models:
            if entry.version:
                found.setdefault(entry.name, {})[int(entry.version)] = entry.state
        return found

    def is_ready(self, model: str) -> bool:
        """What the model's own ready endpoint says; that of the server lies after a failed load."""
        return bool(self._call("ready", model, self._triton.is_model_ready, model))

    def pins(self) -> dict[str, set[tuple[str, int]]]:
        """What each loaded ensemble pins, as read back from the server: ensemble to (step, version)."""
        found = {}
        for model, versions in self.states().items():
            if "READY" not in versions.values():
                continue
            config = self._call("config", model, self._triton.get_model_config, model).config
            if config.platform == "ensemble":
                steps = config.ensemble_scheduling.step
                found[model] = {(step.model_name, int(step.model_version)) for step in steps}
        return found

    def recommend(
        self, model: str, users: Sequence[str], k: Sequence[int], sessions: Sequence[Sequence[str]]
    ) -> list[Recommendation]:
        """Asks one ensemble, whatever its release. Raises PublishError where it does not answer."""
        request = make_request(users, list(k), sessions)
        result = self._call("infer", model, self._triton.infer, model, inputs_of(request, triton_grpc))
        return read_answer(request, outputs_of(result, ENSEMBLE), 0.0)

    def _call(self, what: str, model: str, call: Any, *args: Any, timeout: float = ASK_SECONDS) -> Any:
        try:
            return call(*args, client_timeout=timeout)
        except (InferenceServerException, OSError) as error:
            late = isinstance(error, InferenceServerException) and "DEADLINE" in (error.status() or "")
            raise PublishError(
                f"Triton did not {what} {model}" + (" in time" if late else ""), where=self._replica.name,
                expected=f"within {timeout:g} seconds" if late else None, found=str(error)[:800],
                next_step="restart that server: it serves what the pointer says" if late else None,
            ) from None  # fmt: skip

    def __enter__(self) -> Control:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._triton.close()

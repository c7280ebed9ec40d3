"""The gateway's side of Triton: one question at a time over gRPC, with a deadline, by the release's own ensemble."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Literal

import tritonclient.grpc as triton_grpc
import tritonclient.grpc.aio as triton_aio
from tritonclient.utils import InferenceServerException

from core.errors import RequestError, ServerError
from core.tensors import ENSEMBLE
from serving.client import CHANNEL_OPTIONS
from serving.command import GRPC_HEADER
from serving.gateway.trace import current
from serving.messages import Recommendation, Request, read_answer
from serving.transport import inputs_of, outputs_of

Fault = Literal["slow", "down", "missing", "broken", "busy"]
STUB_WORDS = ("stub process", "not healthy", "failed to process the request", "is not ready")
QUICK_RECONNECT = [
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
]
"""gRPC's own back-off grows to two minutes: a restarted Triton would stay unseen."""


@dataclass(frozen=True)
class TritonFault(Exception):  # noqa: N818
    """Triton did not answer.

    Attributes:
        kind: slow: not in time; down: nobody listens; missing: no such ensemble; busy: refused; broken: anything else.
        message: What it said: for logs, never for users.
    """

    kind: Fault
    message: str

    @property
    def is_dead_stub(self) -> bool:
        """Whether a python step's process is gone."""
        return self.kind == "broken" and any(word in self.message.lower() for word in STUB_WORDS)


class Upstream:
    """A connection to one Triton, for one event loop.

    Args:
        address: host:port of gRPC.
        secret: Gives the one for model control, asked each time: a Triton that was started again has another.
    """

    def __init__(self, address: str, secret: Callable[[], str] = str) -> None:
        self.address = address
        self._secret = secret
        self._triton = triton_aio.InferenceServerClient(address, channel_args=[*CHANNEL_OPTIONS, *QUICK_RECONNECT])

    async def ask(self, model: str, request: Request, seconds: float) -> Recommendation:
        """The answer of one ensemble to a request for one user.

        Raises:
            RequestError: The release refuses the request, such as a k above its limit.
            TritonFault: No answer.
        """
        if seconds <= 0:
            raise TritonFault("slow", "no time left")
        try:
            result = await self._triton.infer(
                model, inputs_of(request, triton_grpc), request_id=current(), client_timeout=seconds
            )
            return read_answer(request, outputs_of(result, ENSEMBLE), 0.0)[0]
        except InferenceServerException as error:
            raise fault_of(error) from None
        except (ServerError, OSError) as error:
            raise TritonFault("broken", str(error)) from None

    async def is_ready(self, model: str, seconds: float) -> bool:
        """What the model's own ready endpoint says; only an answer proves that it works."""
        try:
            return bool(await self._triton.is_model_ready(model, client_timeout=seconds))
        except (InferenceServerException, OSError):
            return False

    async def load(self, model: str, seconds: float) -> None:
        """Loads a model again. Raises TritonFault where that fails."""
        try:
            await self._triton.load_model(model, {GRPC_HEADER: self._secret()}, client_timeout=seconds)
        except (InferenceServerException, OSError) as error:
            raise TritonFault("broken", str(error)) from None

    async def close(self) -> None:
        """Closes the connection."""
        await self._triton.close()

    async def __aenter__(self) -> Upstream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def fault_of(error: InferenceServerException) -> Exception:
    """What an error of Triton means to the gateway."""
    message = error.message() or ""
    code = (error.status() or "").rpartition(".")[2]
    if code == "INVALID_ARGUMENT":
        return RequestError("the release refused the request", found=message)
    kinds: dict[str, Fault] = {"DEADLINE_EXCEEDED": "slow", "NOT_FOUND": "missing", "RESOURCE_EXHAUSTED": "busy"}
    if code in kinds:
        return TritonFault(kinds[code], message)
    if code == "UNAVAILABLE":
        if "not found" in message or "unknown model" in message or "not ready" in message:
            return TritonFault("missing", message)
        return TritonFault("busy" if "queue" in message else "down", message)
    return TritonFault("broken", f"{code} {message}")

"""Typed clients of the ensemble ``recommend``: blocking over gRPC or HTTP, and asynchronous over gRPC."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Literal

import numpy as np
import tritonclient.grpc as triton_grpc
import tritonclient.grpc.aio as triton_aio
from tritonclient.utils import InferenceServerException

from core.errors import ConchError, RequestError, ServerError
from core.tensors import ENSEMBLE
from serving.messages import Recommendation, Request, make_request, read_answer

DEFAULT_ADDRESS = "127.0.0.1:8001"
DEFAULT_DEADLINE_SECONDS = 5.0
DEFAULT_MAX_BATCH = 64
CHANNEL_OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


class ConchClient:
    """Asks Triton for recommendations and waits. Safe to share between threads over gRPC, not over HTTP.

    Args:
        address: host:port of gRPC (8001 by default) or of HTTP (8000).
        protocol: grpc or http.
        max_batch: Longer lists of users are sent in several requests of this size.
        deadline_seconds: How long one request may take.
    """

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        *,
        protocol: Literal["grpc", "http"] = "grpc",
        max_batch: int = DEFAULT_MAX_BATCH,
        deadline_seconds: float = DEFAULT_DEADLINE_SECONDS,
    ) -> None:
        self._address = address
        self._max_batch = max_batch
        self._deadline_seconds = deadline_seconds
        self._http = protocol == "http"
        if self._http:
            import tritonclient.http as triton_http  # brings gevent, which gRPC users should not pay for

            self._module: Any = triton_http
            self._triton: Any = triton_http.InferenceServerClient(
                address, network_timeout=deadline_seconds, connection_timeout=deadline_seconds
            )
        else:
            self._module = triton_grpc
            self._triton = triton_grpc.InferenceServerClient(address, channel_args=CHANNEL_OPTIONS)

    def recommend(
        self,
        users: Sequence[str],
        k: int | Sequence[int] = 10,
        session_items: Sequence[Sequence[str]] | None = None,
        exclude: Sequence[Sequence[str]] | None = None,
    ) -> list[Recommendation]:
        """The best items for each user, in the order of ``users``.

        Args:
            users: External user ids; an unknown one gets a sensible list.
            k: How many items: one number, or one per user.
            session_items: Per user, the newest item ids of this session, oldest first.
            exclude: Per user, item ids that must not come back.

        Raises:
            RequestError: Something about the request is wrong; nothing was sent, or the server refused it.
            ServerError: The server is not there, too slow, too busy or broken.
        """
        request = make_request(users, k, session_items, exclude)
        answers: list[Recommendation] = []
        for part in request.parts(self._max_batch):
            started = time.perf_counter()
            try:
                result = self._triton.infer(ENSEMBLE.name, _inputs(part, self._module), **self._timeout())
            except (InferenceServerException, OSError) as error:
                raise explain(error, self._address, self._deadline_seconds) from None
            answers += read_answer(part, _outputs(result), (time.perf_counter() - started) * 1_000)
        return answers

    def is_ready(self) -> bool:
        """True when the server says that the ensemble is loaded; only an answer proves that it works."""
        try:
            options = {} if self._http else {"client_timeout": self._deadline_seconds}
            return bool(self._triton.is_model_ready(ENSEMBLE.name, **options))
        except (InferenceServerException, OSError):
            return False

    def close(self) -> None:
        """Closes the connection."""
        self._triton.close()

    def __enter__(self) -> ConchClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _timeout(self) -> dict[str, float]:
        return {} if self._http else {"client_timeout": self._deadline_seconds}


class AsyncConchClient:
    """The same over asyncio and gRPC; parts of a long list of users are asked for at once.

    Create and use it inside one running event loop.
    """

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        *,
        max_batch: int = DEFAULT_MAX_BATCH,
        deadline_seconds: float = DEFAULT_DEADLINE_SECONDS,
    ) -> None:
        self._address = address
        self._max_batch = max_batch
        self._deadline_seconds = deadline_seconds
        self._triton = triton_aio.InferenceServerClient(address, channel_args=CHANNEL_OPTIONS)

    async def recommend(
        self,
        users: Sequence[str],
        k: int | Sequence[int] = 10,
        session_items: Sequence[Sequence[str]] | None = None,
        exclude: Sequence[Sequence[str]] | None = None,
    ) -> list[Recommendation]:
        """See :meth:`ConchClient.recommend`."""
        request = make_request(users, k, session_items, exclude)
        answers = await asyncio.gather(*(self._ask(part) for part in request.parts(self._max_batch)))
        return [answer for part in answers for answer in part]

    async def _ask(self, part: Request) -> list[Recommendation]:
        started = time.perf_counter()
        try:
            result = await self._triton.infer(
                ENSEMBLE.name, _inputs(part, triton_grpc), client_timeout=self._deadline_seconds
            )
        except (InferenceServerException, OSError) as error:
            raise explain(error, self._address, self._deadline_seconds) from None
        return read_answer(part, _outputs(result), (time.perf_counter() - started) * 1_000)

    async def close(self) -> None:
        """Closes the connection."""
        await self._triton.close()

    async def __aenter__(self) -> AsyncConchClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def explain(error: Exception, address: str, deadline_seconds: float) -> ConchError:
    """What an error of the transport or of Triton means, and what to do about it."""
    status = error.status() or "" if isinstance(error, InferenceServerException) else ""
    message = (error.message() if isinstance(error, InferenceServerException) else str(error)) or repr(error)
    code = status.rpartition(".")[2]
    if code in ("INVALID_ARGUMENT", "400"):
        return RequestError("the server refused the request", where=ENSEMBLE.name, found=message)
    if "queue size" in message or ("timeout" in message.lower() and "queue" in message.lower()):
        return ServerError("the server is too busy", where=address, found=message, next_step="try again later")
    if code in ("DEADLINE_EXCEEDED", "499") or isinstance(error, TimeoutError):
        return ServerError(
            "no answer in time", where=address, expected=f"an answer within {deadline_seconds:g} seconds", found=message
        )
    if code in ("UNAVAILABLE", "503") or isinstance(error, OSError):
        return ServerError("no server answers", where=address, found=message, next_step="make serve")
    if code in ("NOT_FOUND", "404") or "unknown model" in message:
        return ServerError(
            f"the server does not serve {ENSEMBLE.name}", where=address, found=message, next_step="conch activate"
        )
    return ServerError("the server failed", where=address, found=f"{code} {message}".strip())


def _inputs(part: Request, module: Any) -> list[Any]:
    tensors = part.tensors()
    inputs = []
    for spec in ENSEMBLE.inputs:
        tensor = module.InferInput(spec.name, list(tensors[spec.name].shape), spec.dtype.wire)
        tensor.set_data_from_numpy(tensors[spec.name])
        inputs.append(tensor)
    return inputs


def _outputs(result: Any) -> dict[str, np.ndarray]:
    outputs = {spec.name: result.as_numpy(spec.name) for spec in ENSEMBLE.outputs}
    empty = [name for name, array in outputs.items() if array is None or array.size == 0]
    if empty:
        raise ServerError(
            "the server returned empty tensors",
            where=", ".join(empty),
            next_step="check that its Python environment has numpy < 2",
        )
    return outputs

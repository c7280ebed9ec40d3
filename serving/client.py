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
from core.sections import ServingSettings
from core.tensors import ENSEMBLE
from serving.messages import Recommendation, Request, make_request, read_answer

DEFAULT_ADDRESS = "127.0.0.1:8001"
DEFAULT_DEADLINE_SECONDS = 5.0
WIRE = {tensor.name: tensor.dtype.wire for tensor in ENSEMBLE.inputs}
CHANNEL_OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


class ConchClient:
    """Asks Triton for recommendations and waits. Safe to share between threads over gRPC, not over HTTP.

    Longer lists of users than the server takes at once are sent in several requests.

    Args:
        server: host:port, or the settings of the server.
        protocol: grpc or http; the port must be that protocol's.
        deadline_seconds: How long one request may take; the settings' or 5 seconds when None.
    """

    def __init__(
        self,
        server: str | ServingSettings = DEFAULT_ADDRESS,
        *,
        protocol: Literal["grpc", "http"] = "grpc",
        deadline_seconds: float | None = None,
    ) -> None:
        self._http = protocol == "http"
        self._address, self._deadline_seconds = _target(server, protocol, deadline_seconds)
        self._max_batch: int | None = None
        if self._http:
            import tritonclient.http as triton_http  # brings gevent, which gRPC users should not pay for

            self._module: Any = triton_http
            self._triton: Any = triton_http.InferenceServerClient(
                self._address, network_timeout=self._deadline_seconds, connection_timeout=self._deadline_seconds
            )
        else:
            self._module = triton_grpc
            self._triton = triton_grpc.InferenceServerClient(self._address, channel_args=CHANNEL_OPTIONS)

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
        if len(request) == 1:
            return self._ask(request)
        return [answer for part in request.parts(self._largest_batch()) for answer in self._ask(part)]

    def is_ready(self) -> bool:
        """True when the server says that the ensemble is loaded; only an answer proves that it works."""
        try:
            return bool(self._triton.is_model_ready(ENSEMBLE.name, **self._timeout()))
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

    def _ask(self, part: Request) -> list[Recommendation]:
        started = time.perf_counter()
        try:
            result = self._triton.infer(ENSEMBLE.name, _inputs(part, self._module), **self._timeout())
        except (InferenceServerException, OSError) as error:
            raise explain(error, self._address, self._deadline_seconds) from None
        return read_answer(part, _outputs(result), (time.perf_counter() - started) * 1_000)

    def _largest_batch(self) -> int:
        """The server's limit, asked once."""
        if self._max_batch is None:
            try:
                config = self._triton.get_model_config(ENSEMBLE.name, **self._timeout())
            except (InferenceServerException, OSError) as error:
                raise explain(error, self._address, self._deadline_seconds) from None
            self._max_batch = int(config["max_batch_size"] if self._http else config.config.max_batch_size)
        return self._max_batch

    def _timeout(self) -> dict[str, float]:
        return {} if self._http else {"client_timeout": self._deadline_seconds}


class AsyncConchClient:
    """The same over asyncio and gRPC; parts of a long list of users are asked for at once.

    Create and use it inside one running event loop. Arguments as of :class:`ConchClient`.
    """

    def __init__(
        self, server: str | ServingSettings = DEFAULT_ADDRESS, *, deadline_seconds: float | None = None
    ) -> None:
        self._address, self._deadline_seconds = _target(server, "grpc", deadline_seconds)
        self._max_batch: int | None = None
        self._triton = triton_aio.InferenceServerClient(self._address, channel_args=CHANNEL_OPTIONS)

    async def recommend(
        self,
        users: Sequence[str],
        k: int | Sequence[int] = 10,
        session_items: Sequence[Sequence[str]] | None = None,
        exclude: Sequence[Sequence[str]] | None = None,
    ) -> list[Recommendation]:
        """See :meth:`ConchClient.recommend`."""
        request = make_request(users, k, session_items, exclude)
        if len(request) == 1:
            return await self._ask(request)
        parts = request.parts(await self._largest_batch())
        return [answer for answers in await asyncio.gather(*map(self._ask, parts)) for answer in answers]

    async def _ask(self, part: Request) -> list[Recommendation]:
        started = time.perf_counter()
        try:
            result = await self._triton.infer(
                ENSEMBLE.name, _inputs(part, triton_grpc), client_timeout=self._deadline_seconds
            )
        except (InferenceServerException, OSError) as error:
            raise explain(error, self._address, self._deadline_seconds) from None
        return read_answer(part, _outputs(result), (time.perf_counter() - started) * 1_000)

    async def _largest_batch(self) -> int:
        """The server's limit, asked once."""
        if self._max_batch is None:
            try:
                config = await self._triton.get_model_config(ENSEMBLE.name, client_timeout=self._deadline_seconds)
            except (InferenceServerException, OSError) as error:
                raise explain(error, self._address, self._deadline_seconds) from None
            self._max_batch = int(config.config.max_batch_size)
        return self._max_batch

    async def close(self) -> None:
        """Closes the connection."""
        await self._triton.close()

    async def __aenter__(self) -> AsyncConchClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def explain(error: Exception, address: str, deadline_seconds: float, model: str = ENSEMBLE.name) -> ConchError:
    """What an error of the transport or of Triton means, and what to do about it."""
    status = error.status() or "" if isinstance(error, InferenceServerException) else ""
    message = (error.message() if isinstance(error, InferenceServerException) else str(error)) or repr(error)
    code = status.rpartition(".")[2]
    if code in ("INVALID_ARGUMENT", "400"):
        return RequestError("the server refused the request", where=model, found=message)
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
            f"the server does not serve {model}", where=address, found=message, next_step="conch activate"
        )
    return ServerError("the server failed", where=address, found=f"{code} {message}".strip())


def _target(server: str | ServingSettings, protocol: str, deadline_seconds: float | None) -> tuple[str, float]:
    """Address and deadline."""
    if isinstance(server, str):
        return server, deadline_seconds or DEFAULT_DEADLINE_SECONDS
    port = server.http_port if protocol == "http" else server.grpc_port
    return f"{server.host}:{port}", deadline_seconds or server.deadline_seconds


def _inputs(part: Request, module: Any) -> list[Any]:
    inputs = []
    for name, array in part.tensors().items():
        tensor = module.InferInput(name, list(array.shape), WIRE[name])
        tensor.set_data_from_numpy(array)
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

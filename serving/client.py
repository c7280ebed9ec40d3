"""Typed clients of the ensembles: blocking over gRPC or HTTP, and asynchronous over gRPC."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, TypeVar

import numpy as np
import tritonclient.grpc as triton_grpc
import tritonclient.grpc.aio as triton_aio
from tritonclient.utils import InferenceServerException

from core.sections import ServingSettings
from core.tensors import ENSEMBLE, SIMILAR_ITEMS, SIMILAR_USERS, StepSpec
from serving.messages import Recommendation, make_request, read_answer
from serving.similar import SimilarItems, SimilarUsers, items_request, read_similar_items, read_similar_users
from serving.transport import Part, explain, inputs_of, outputs_of, parts, target

DEFAULT_ADDRESS = "127.0.0.1:8001"
CHANNEL_OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
T = TypeVar("T")


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
        self._address, self._deadline_seconds = target(server, protocol, deadline_seconds)
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
        diversity: float | Sequence[float] | None = None,
        attributes: Sequence[Mapping[str, str]] | None = None,
    ) -> list[Recommendation]:
        """The best items for each user, in the order of ``users``.

        Args:
            users: External user ids; an unknown one gets a sensible list.
            k: How many items: one number, or one per user.
            session_items: Per user, the newest item ids of this session, oldest first.
            exclude: Per user, item ids that must not come back.
            diversity: How varied the lists are, for all or per user: 0 by score alone, 1 by variety alone, None as
                the release is set. Scores and reasons stay those of the ranking.
            attributes: Per user, values by attribute name, for this request alone.

        Raises:
            RequestError: Something about the request is wrong; nothing was sent, or the server refused it.
            ServerError: The server is not there, too slow, too busy or broken.
        """
        return self._ask_all(
            ENSEMBLE, make_request(users, k, session_items, exclude, diversity, attributes), read_answer
        )

    def similar_items(
        self,
        items: Sequence[str | Sequence[str]],
        k: int | Sequence[int] = 10,
        exclude: Sequence[Sequence[str]] | None = None,
    ) -> list[SimilarItems]:
        """The items most like others, in the order of ``items``.

        Args:
            items: One question each: an item id, or several that are asked about together. Unknown ones are ignored.
            k: How many items: one number, or one per question.
            exclude: Per question, item ids that must not come back; those asked about never do.

        Raises:
            RequestError: See ``recommend``.
            ServerError: See ``recommend``; also where the release does not serve similar items.
        """
        return self._ask_all(SIMILAR_ITEMS, items_request(items, k, exclude), read_similar_items)

    def similar_users(
        self,
        users: Sequence[str],
        k: int | Sequence[int] = 10,
        session_items: Sequence[Sequence[str]] | None = None,
    ) -> list[SimilarUsers]:
        """The users of the release most like others, in the order of ``users``: for analysts, never for other users.

        Args:
            users: External user ids; an unknown one is known by its session alone.
            k: How many users: one number, or one per user.
            session_items: Per user, the newest item ids of this session, oldest first.

        Raises:
            RequestError: See ``recommend``.
            ServerError: See ``recommend``; also where the release does not serve similar users, as by default.
        """
        return self._ask_all(SIMILAR_USERS, make_request(users, k, session_items), read_similar_users)

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

    def _ask_all(
        self, spec: StepSpec, request: Part, read: Callable[[Part, dict[str, np.ndarray], float], list[T]]
    ) -> list[T]:
        """Sends a request in parts that the server takes."""
        size = len(request) if len(request) == 1 else self._largest_batch(spec)
        return [answer for part in parts(request, size) for answer in self._ask(spec, part, read)]

    def _ask(
        self, spec: StepSpec, part: Part, read: Callable[[Part, dict[str, np.ndarray], float], list[T]]
    ) -> list[T]:
        started = time.perf_counter()
        try:
            result = self._triton.infer(spec.name, inputs_of(part, self._module), **self._timeout())
        except (InferenceServerException, OSError) as error:
            raise explain(error, self._address, self._deadline_seconds, spec.name) from None
        return read(part, outputs_of(result, spec), (time.perf_counter() - started) * 1_000)

    def _largest_batch(self, spec: StepSpec) -> int:
        """The server's limit, asked once: all models of a release share it."""
        if self._max_batch is None:
            try:
                config = self._triton.get_model_config(spec.name, **self._timeout())
            except (InferenceServerException, OSError) as error:
                raise explain(error, self._address, self._deadline_seconds, spec.name) from None
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
        self._address, self._deadline_seconds = target(server, "grpc", deadline_seconds)
        self._max_batch: int | None = None
        self._triton = triton_aio.InferenceServerClient(self._address, channel_args=CHANNEL_OPTIONS)

    async def recommend(
        self,
        users: Sequence[str],
        k: int | Sequence[int] = 10,
        session_items: Sequence[Sequence[str]] | None = None,
        exclude: Sequence[Sequence[str]] | None = None,
        diversity: float | Sequence[float] | None = None,
        attributes: Sequence[Mapping[str, str]] | None = None,
    ) -> list[Recommendation]:
        """See :meth:`ConchClient.recommend`."""
        return await self._ask_all(
            ENSEMBLE, make_request(users, k, session_items, exclude, diversity, attributes), read_answer
        )

    async def similar_items(
        self,
        items: Sequence[str | Sequence[str]],
        k: int | Sequence[int] = 10,
        exclude: Sequence[Sequence[str]] | None = None,
    ) -> list[SimilarItems]:
        """See :meth:`ConchClient.similar_items`."""
        return await self._ask_all(SIMILAR_ITEMS, items_request(items, k, exclude), read_similar_items)

    async def similar_users(
        self,
        users: Sequence[str],
        k: int | Sequence[int] = 10,
        session_items: Sequence[Sequence[str]] | None = None,
    ) -> list[SimilarUsers]:
        """See :meth:`ConchClient.similar_users`."""
        return await self._ask_all(SIMILAR_USERS, make_request(users, k, session_items), read_similar_users)

    async def _ask_all(
        self, spec: StepSpec, request: Part, read: Callable[[Part, dict[str, np.ndarray], float], list[T]]
    ) -> list[T]:
        size = len(request) if len(request) == 1 else await self._largest_batch(spec)
        asked = [self._ask(spec, part, read) for part in parts(request, size)]
        return [answer for answers in await asyncio.gather(*asked) for answer in answers]

    async def _ask(
        self, spec: StepSpec, part: Part, read: Callable[[Part, dict[str, np.ndarray], float], list[T]]
    ) -> list[T]:
        started = time.perf_counter()
        try:
            result = await self._triton.infer(
                spec.name, inputs_of(part, triton_grpc), client_timeout=self._deadline_seconds
            )
        except (InferenceServerException, OSError) as error:
            raise explain(error, self._address, self._deadline_seconds, spec.name) from None
        return read(part, outputs_of(result, spec), (time.perf_counter() - started) * 1_000)

    async def _largest_batch(self, spec: StepSpec) -> int:
        """The server's limit, asked once: all models of a release share it."""
        if self._max_batch is None:
            try:
                config = await self._triton.get_model_config(spec.name, client_timeout=self._deadline_seconds)
            except (InferenceServerException, OSError) as error:
                raise explain(error, self._address, self._deadline_seconds, spec.name) from None
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

"""Ratings for callers: a release that rates in this process, and a client of Triton's model ``rate``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
import tritonclient.grpc as triton_grpc
from tritonclient.utils import InferenceServerException

from core.errors import ReleaseError, ServerError
from core.sections import ServingSettings
from core.tensors import (
    ASKED_ITEMS,
    ASKED_KNOWN,
    ASKED_ROWS,
    CONTEXT,
    LIKE_PROBABILITIES,
    RATE,
    RATING,
    RATINGS,
    RELEASE,
    SESSION_ITEMS,
    USER_ID,
)
from serving.asked import asked_rows
from serving.client import CHANNEL_OPTIONS
from serving.context import build_context
from serving.local import open_session
from serving.messages import Request, make_request
from serving.release import GRAPH_FILE, REPOSITORY, ReleaseInfo, read_release
from serving.state import read_context_state
from serving.transport import explain

Ids = Sequence[str]


@dataclass(frozen=True)
class RatedItem:
    """One item as one user is expected to value it.

    Attributes:
        item_id: External id.
        rating: Expected value on the scale of the data.
        like_probability: That the value is at or above the threshold of the release.
        known: False where the catalogue lacks the item: then the figures say what is expected of any new item.
    """

    item_id: str
    rating: float
    like_probability: float
    known: bool


@dataclass(frozen=True)
class Ratings:
    """The answer for one user, items in the order asked."""

    user_id: str
    items: tuple[RatedItem, ...]
    release: str


class LocalRater:
    """A release's rating model in this process, no server needed.

    Args:
        release: Folder of a release that serves ratings.
        threads: Threads of ONNX Runtime.

    Raises:
        ReleaseError: The folder is no release, or it has no rating model.
    """

    def __init__(self, release: Path, threads: int = 1) -> None:
        self.info: ReleaseInfo = read_release(release)
        if RATE.name not in self.info.extras:
            raise ReleaseError(
                "this release does not rate",
                where=str(release),
                next_step="run `conch train rating`, then `conch export` and `conch release`",
            )
        folder = lambda name: release / REPOSITORY / name / str(self.info.version)  # noqa: E731
        self._context = read_context_state(folder(CONTEXT.name))
        self._session = open_session(folder(RATING.name) / GRAPH_FILE, threads)

    def rate(self, users: Ids, items: Sequence[Ids], session_items: Sequence[Ids] | None = None) -> list[Ratings]:
        """Ratings of each user's items; arguments as of :meth:`RateClient.rate`."""
        request = _request(users, items, session_items)
        answers: list[Ratings] = []
        for part in request.parts(self.info.max_batch):
            states = self._context.store.lookup(part.users)
            tensors = build_context(states, part.session_items, [()] * len(part), self._context.items).tensors()
            rows, known = asked_rows(_padded(part), self._context.items)
            tensors[ASKED_ROWS.name] = rows
            feeds = {tensor.name: tensors[tensor.name] for tensor in RATING.inputs}
            names = [tensor.name for tensor in RATING.outputs]
            ratings, probabilities = self._session.run(names, feeds)
            release = np.full((len(part), 1), self.info.release_id, dtype=object)
            answers += _read(part, ratings, probabilities, known, release)
        return answers

    def close(self) -> None:
        """Frees the history file."""
        self._context.close()

    def __enter__(self) -> LocalRater:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class RateClient:
    """Asks Triton's model ``rate`` over gRPC and waits.

    Args:
        server: The settings of the server.
        max_batch: Users per request at most.
    """

    def __init__(self, server: ServingSettings, max_batch: int = 64) -> None:
        self._address, self._deadline_seconds = f"{server.host}:{server.grpc_port}", server.deadline_seconds
        self._max_batch = max_batch
        self._triton = triton_grpc.InferenceServerClient(self._address, channel_args=CHANNEL_OPTIONS)

    def rate(self, users: Ids, items: Sequence[Ids], session_items: Sequence[Ids] | None = None) -> list[Ratings]:
        """Ratings of each user's items.

        Args:
            users: External user ids; unknown ones get what is expected of a new user.
            items: Per user, external item ids; may be seen ones.
            session_items: Per user, newest items of the session; they count as taken up, without a value.

        Raises:
            RequestError: Something about the request is wrong.
            ServerError: The server is not there, too slow or does not serve ratings.
        """
        request = _request(users, items, session_items)
        return [answer for part in request.parts(self._max_batch) for answer in self._ask(part)]

    def close(self) -> None:
        """Closes the connection."""
        self._triton.close()

    def __enter__(self) -> RateClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, part: Request) -> list[Ratings]:
        tensors = {name: array for name, array in part.tensors().items() if name in (USER_ID.name, SESSION_ITEMS.name)}
        tensors[ASKED_ITEMS.name] = np.array(_padded(part), dtype=object)
        inputs = []
        for name, array in tensors.items():
            tensor = triton_grpc.InferInput(name, list(array.shape), "BYTES")
            tensor.set_data_from_numpy(array)
            inputs.append(tensor)
        try:
            result = self._triton.infer(RATE.name, inputs, client_timeout=self._deadline_seconds)
        except (InferenceServerException, OSError) as error:
            raise explain(error, self._address, self._deadline_seconds, RATE.name) from None
        outputs = [result.as_numpy(spec.name) for spec in (RATINGS, LIKE_PROBABILITIES, ASKED_KNOWN, RELEASE)]
        if any(output is None or output.size == 0 for output in outputs):
            raise ServerError(
                "the server returned empty tensors",
                where=RATE.name,
                next_step="check that its Python environment has numpy < 2",
            )
        return _read(part, *outputs)


def _request(users: Ids, items: Sequence[Ids], session_items: Sequence[Ids] | None) -> Request:
    """Items to rate are checked as excluded ones are, and travel in their place."""
    return make_request(users, 1, session_items, items)


def _padded(part: Request) -> list[list[str]]:
    width = max(1, *map(len, part.exclude))
    return [[*ids, *[""] * (width - len(ids))] for ids in part.exclude]


def _read(
    part: Request, ratings: np.ndarray, probabilities: np.ndarray, known: np.ndarray, release: np.ndarray
) -> list[Ratings]:
    if not (np.isfinite(ratings).all() and np.isfinite(probabilities).all()):
        raise ServerError("the rating model returned a figure that is not a number", where=RATING.name)
    answers = []
    for at, (user_id, ids) in enumerate(zip(part.users, part.exclude, strict=True)):
        items = tuple(
            RatedItem(item_id, float(ratings[at, place]), float(probabilities[at, place]), bool(known[at, place]))
            for place, item_id in enumerate(ids)
        )
        name = release[at, 0]
        answers.append(Ratings(user_id, items, name.decode() if isinstance(name, bytes) else name))
    return answers

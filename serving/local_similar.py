"""Similar items and users in this process: the graphs and steps that Triton serves."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime

from core.errors import ReleaseError
from core.tensors import (
    EXCLUDE_ROWS,
    HISTORY,
    HISTORY_ROWS,
    NAME_USERS,
    NEAREST_ITEMS,
    NEAREST_USERS,
    PAD_ID,
    RELEASE,
    StepSpec,
)
from serving.context import build_context
from serving.messages import Request
from serving.name_users import name_users
from serving.release import GRAPH_FILE, REPOSITORY, ReleaseInfo
from serving.respond import Ranked, build_response
from serving.similar import ItemsRequest, SimilarItems, SimilarUsers, read_similar_items, read_similar_users
from serving.state import ContextState, RespondState, UsersState, read_users_state

Session = Callable[[Path], onnxruntime.InferenceSession]


class LocalSimilar:
    """Nearest items and users of a release. Graphs are opened when they are first asked for.

    Args:
        release: Folder of a release.
        info: What it says of itself.
        context: State of the context step.
        respond: State of the respond step.
        open_graph: Opens a graph.
    """

    def __init__(
        self, release: Path, info: ReleaseInfo, context: ContextState, respond: RespondState, open_graph: Session
    ) -> None:
        self._repository = release / REPOSITORY
        self._info = info
        self._context = context
        self._respond = respond
        self._open = open_graph
        self._sessions: dict[str, onnxruntime.InferenceSession] = {}
        self._users: UsersState | None = None

    def items(self, request: ItemsRequest) -> list[SimilarItems]:
        """The nearest items of each question. Raises ReleaseError where the release does not serve them."""
        answers: list[SimilarItems] = []
        session = self._session(NEAREST_ITEMS, "items")
        for part in self._parts(request):
            started = time.perf_counter()
            states = self._context.store.lookup([PAD_ID] * len(part))
            context = build_context(states, part.asked, part.exclude, self._context.items, self._context.excluded)
            tensors = context.tensors()
            *ranked, _ = session.run(None, {t.name: tensors[t.name] for t in (HISTORY_ROWS, EXCLUDE_ROWS)})
            response = build_response(np.array(part.k, np.int32), Ranked(*ranked), self._respond.item_ids).tensors()
            answers += read_similar_items(part, response | self._release(len(part)), _ms_since(started))
        return answers

    def users(self, request: Request) -> list[SimilarUsers]:
        """The nearest users of each user. Raises ReleaseError where the release does not serve them."""
        session = self._session(NEAREST_USERS, "users")
        if self._users is None:
            self._users = read_users_state(self._repository / NAME_USERS.name / str(self._info.version))
        users, names = self._users.users, self._users.user_ids
        answers: list[SimilarUsers] = []
        for part in request.parts(self._info.max_batch):
            started = time.perf_counter()
            states = self._context.store.lookup(part.users)
            tensors = build_context(states, part.session_items, part.exclude, self._context.items).tensors()
            rows, scores = session.run(None, {tensor.name: tensors[tensor.name] for tensor in HISTORY})
            named = name_users(users.rows(part.users), np.array(part.k, np.int32), rows, scores, names)
            answers += read_similar_users(part, named | self._release(len(part)), _ms_since(started))
        return answers

    def _parts(self, request: ItemsRequest) -> list[ItemsRequest]:
        size = self._info.max_batch
        return [request.take(range(at, min(at + size, len(request)))) for at in range(0, len(request), size)]

    def _session(self, spec: StepSpec, noun: str) -> onnxruntime.InferenceSession:
        if f"similar_{noun}" not in self._info.extras:
            raise ReleaseError(
                f"this release does not serve similar {noun}",
                where=self._info.release_id,
                next_step=f"conch export --set similar.{noun}=true, then conch release with the same",
            )
        if spec.name not in self._sessions:
            folder = self._repository / spec.name / str(self._info.version)
            self._sessions[spec.name] = self._open(folder / GRAPH_FILE)
        return self._sessions[spec.name]

    def _release(self, count: int) -> dict[str, np.ndarray]:
        return {RELEASE.name: np.full((count, 1), self._info.release_id, dtype=object)}


def _ms_since(started: float) -> float:
    return (time.perf_counter() - started) * 1_000

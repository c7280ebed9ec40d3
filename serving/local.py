"""A release answering in this process: the steps and graphs that Triton serves, for batch jobs and as its oracle."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType

import numpy as np
import onnxruntime

from core.errors import ReleaseError, RequestError
from core.tensors import (
    CONTEXT,
    EXCLUDE_ROWS,
    EXPLANATIONS,
    MASKED,
    RANKED_ROWS,
    RANKED_SCORES,
    REASON_ROWS,
    REASON_WEIGHTS,
    RELEASE,
    RESPOND,
    StepSpec,
    graph_steps,
)
from serving.context import build_context
from serving.history import UserStates
from serving.local_similar import LocalSimilar
from serving.messages import Recommendation, Request, make_request, read_answer
from serving.release import GRAPH_FILE, REPOSITORY, ReleaseInfo, read_release
from serving.rerank import Reranker
from serving.respond import Order, Ranked, build_response, ordered
from serving.similar import SimilarItems, SimilarUsers, items_request
from serving.state import Catalogue, read_context_state, read_respond_state

PIPELINE, POPULARITY = "pipeline", "popularity"
"""Stages of every release; the others are its recall sources."""
Tensors = dict[str, np.ndarray]
LOOKUP_CHUNK = 4_096
"""Users whose histories are held at once."""


class LocalPipeline:
    """Recommends with a release folder, no server needed. Safe to share between threads.

    Args:
        release: Folder of a release.
        threads: Threads of ONNX Runtime per graph; 0 takes all cores.

    Raises:
        ReleaseError: The folder is no release, or a graph cannot be loaded.
    """

    def __init__(self, release: Path, threads: int = 0) -> None:
        self.info: ReleaseInfo = read_release(release)
        *recall, self._rank = graphs = graph_steps(self.info.sources)
        self._recall = dict(zip(self.info.sources, recall, strict=True))
        folders = {
            spec.name: release / REPOSITORY / spec.name / str(self.info.version) for spec in (CONTEXT, RESPOND, *graphs)
        }
        self._context = read_context_state(folders[CONTEXT.name])
        self._respond = read_respond_state(folders[RESPOND.name])
        self._popularity = Catalogue.read(folders[RESPOND.name]).counts.astype(np.float32)
        open_graph = partial(open_session, threads=threads or os.cpu_count() or 1)
        self._sessions = {spec.name: open_graph(folders[spec.name] / GRAPH_FILE) for spec in graphs}
        self._similar = LocalSimilar(release, self.info, self._context, self._respond, open_graph)

    @property
    def max_k(self) -> int:
        """The longest list of stage ``pipeline``."""
        return self.info.max_k

    @property
    def reranker(self) -> Reranker:
        """How stage ``pipeline`` re-ranks."""
        return self._respond.reranker

    @property
    def stages(self) -> tuple[str, ...]:
        """What can be asked alone: popularity, each recall source, the pipeline."""
        return (POPULARITY, *self.info.sources, PIPELINE)

    def recommend(
        self,
        users: Sequence[str],
        k: int | Sequence[int] = 10,
        session_items: Sequence[Sequence[str]] | None = None,
        exclude: Sequence[Sequence[str]] | None = None,
        diversity: float | Sequence[float] | None = None,
        stage: str = PIPELINE,
        attributes: Sequence[Mapping[str, str]] | None = None,
    ) -> list[Recommendation]:
        """The best items for each user with scores, ids and reasons; arguments as of ``ConchClient.recommend``.

        Args:
            users: External user ids.
            k: How many items: one number, or one per user.
            session_items: Per user, newest items, oldest first.
            exclude: Per user, items that must not come back.
            diversity: See ``ConchClient.recommend``; the stage ``pipeline`` only.
            attributes: Per user, values by attribute name, for this request alone.
            stage: The whole pipeline, or one recall model, or items by their number of events. Only the pipeline
                gives reasons.

        Raises:
            RequestError: Something about the request is wrong.
        """
        request = make_request(users, k, session_items, exclude, diversity, attributes)
        answers: dict[int, Recommendation] = {}
        for places, part, states in self._batches(request):
            started = time.perf_counter()
            ranked = self._ranked(part, states, stage)
            order = self._order(part, stage)
            response = build_response(np.array(part.k, np.int32), ranked, self._respond.item_ids, order).tensors()
            response[RELEASE.name] = np.full((len(part), 1), self.info.release_id, dtype=object)
            latency_ms = (time.perf_counter() - started) * 1_000
            answers.update(zip(places, read_answer(part, response, latency_ms), strict=True))
        return [answers[place] for place in range(len(request))]

    def recommend_rows(
        self, users: Sequence[str], k: int, stage: str = PIPELINE, diversity: float | None = None
    ) -> np.ndarray:
        """Lists as item rows, for measuring: nothing is turned into strings.

        Args:
            users: U external user ids.
            k: Length of the lists.
            stage: See ``recommend``.
            diversity: See ``recommend``.

        Returns:
            int64 ``(U, k)``, best first; -1 where a list is short, as it is beyond R (pipeline) or K (a recall source).
        """
        request = make_request(users, k, diversity=diversity)
        lists = np.full((len(request), k), -1, dtype=np.int64)
        for places, part, states in self._batches(request):
            ranked = self._ranked(part, states, stage)
            ranked = ordered(ranked, min(k, ranked.rows.shape[1]), self._order(part, stage))
            lists[places, : ranked.rows.shape[1]] = np.where(ranked.scores > MASKED / 2, ranked.rows, -1)
        return lists

    def ranked(self, users: Sequence[str]) -> Ranked:
        """The ranked candidates of each user before re-ranking: lists ``(U, R)``, for measuring."""
        request = make_request(users, self.max_k)
        parts = [(places, self._ranked(part, states, PIPELINE)) for places, part, states in self._batches(request)]
        order = np.argsort(np.concatenate([places for places, _ in parts]))
        columns = zip(*((r.rows, r.scores, r.reason_rows, r.reason_weights) for _, r in parts), strict=True)
        return Ranked(*(np.concatenate(column)[order] for column in columns))

    def similar_items(
        self,
        items: Sequence[str | Sequence[str]],
        k: int | Sequence[int] = 10,
        exclude: Sequence[Sequence[str]] | None = None,
    ) -> list[SimilarItems]:
        """The items most like others; arguments as of ``ConchClient.similar_items``.

        Raises:
            RequestError: Something about the request is wrong.
            ReleaseError: The release does not serve similar items.
        """
        return self._similar.items(items_request(items, k, exclude))

    def similar_users(
        self,
        users: Sequence[str],
        k: int | Sequence[int] = 10,
        session_items: Sequence[Sequence[str]] | None = None,
    ) -> list[SimilarUsers]:
        """The users most like others; arguments as of ``ConchClient.similar_users``.

        Raises:
            RequestError: Something about the request is wrong.
            ReleaseError: The release does not serve similar users.
        """
        return self._similar.users(make_request(users, k, session_items))

    def close(self) -> None:
        """Frees the history file."""
        self._context.close()

    def __enter__(self) -> LocalPipeline:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _batches(self, request: Request) -> Iterator[tuple[list[int], Request, UserStates]]:
        """Places in the request, what is asked there, and what is known of these users.

        Users are looked up in chunks and batched with others of similar history, so that little is padded.
        """
        size = self.info.max_batch
        for start in range(0, len(request), LOOKUP_CHUNK):
            chunk = request.take(range(start, min(start + LOOKUP_CHUNK, len(request))))
            states = self._context.store.lookup(chunk.users)
            order = np.argsort([len(history) for history in states.histories], kind="stable")
            for first in range(0, len(order), size):
                places = order[first : first + size].tolist()
                yield [start + place for place in places], chunk.take(places), states.take(places)

    def _order(self, part: Request, stage: str) -> Order | None:
        """Re-ranking for the pipeline; other stages are shown as they are."""
        if stage != PIPELINE and any(part.diversity):
            raise RequestError(
                f"stage {stage} is not re-ranked",
                where="diversity",
                expected=f"stage {PIPELINE}, or no diversity",
                found=str(max(part.diversity)),
            )
        diversity = np.array(part.diversity, np.float32) if part.diversity else None
        return Order(self._respond.reranker, diversity) if stage == PIPELINE else None

    def _ranked(self, part: Request, states: UserStates, stage: str) -> Ranked:
        if stage not in self.stages:
            raise RequestError("no such stage", where="stage", expected=", ".join(self.stages), found=stage)
        state = self._context
        context = build_context(
            states, part.session_items, part.exclude, state.items, state.excluded, part.attributes, state.codebook
        ).tensors()
        if stage == POPULARITY:
            return self._popular(context[EXCLUDE_ROWS.name], max(part.k))
        if stage != PIPELINE:
            rows, scores = self._run(self._recall[stage], context).values()
            return self._without_reasons(rows, scores)
        for spec in self._recall.values():
            context |= self._run(spec, context)
        ranked = self._run(self._rank, context)
        return Ranked(*(ranked[t.name] for t in (RANKED_ROWS, RANKED_SCORES, REASON_ROWS, REASON_WEIGHTS)))

    def _run(self, spec: StepSpec, tensors: Tensors) -> Tensors:
        names = [tensor.name for tensor in spec.outputs]
        feeds = {tensor.name: tensors[tensor.name] for tensor in spec.inputs}
        return dict(zip(names, self._sessions[spec.name].run(names, feeds), strict=True))

    def _popular(self, exclude: np.ndarray, k: int) -> Ranked:
        """Items by number of events, ties to the lower row, seen ones left out."""
        wide = self.info.n_items + 1
        scores = np.broadcast_to(np.append(self._popularity, np.float32(MASKED)), (len(exclude), wide)).copy()
        np.put_along_axis(scores, exclude, np.float32(MASKED), axis=1)
        rows = np.argsort(-scores, axis=1, kind="stable")[:, : min(k, wide)]
        return self._without_reasons(rows, np.take_along_axis(scores, rows, axis=1))

    def _without_reasons(self, rows: np.ndarray, scores: np.ndarray) -> Ranked:
        shape = (*rows.shape, EXPLANATIONS)
        return Ranked(rows, scores, np.full(shape, self.info.n_items), np.zeros(shape, np.float32))


def open_session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    """A CPU session. Raises ReleaseError where ONNX Runtime refuses the file."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # spinning starves a busy machine
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises its own hierarchy per failure
        raise ReleaseError("graph cannot be loaded", where=str(path), found=str(error)[:500]) from None

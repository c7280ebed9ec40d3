"""The limit: the graphs of the five steps in this process, nothing around them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from core.tensors import CONTEXT
from serving.context import build_context
from serving.local import LocalPipeline, Tensors
from serving.messages import make_request


class BareGraphs(LocalPipeline):
    """Runs recall and rank on prepared inputs."""

    def __enter__(self) -> BareGraphs:
        return self

    def prepared(self, users: Sequence[str]) -> Tensors:
        """What the context step gives for these users."""
        request = make_request(users)
        state = self._context
        states = state.store.lookup(request.users)
        context = build_context(
            states, request.session_items, request.exclude, state.items, state.excluded, (), state.codebook
        )
        tensors = context.tensors()
        return {tensor.name: tensors[tensor.name] for tensor in CONTEXT.outputs}

    def lists(self, users: Sequence[str]) -> list[list[str]]:
        """What all five steps answer."""
        return [[item.item_id for item in one.items] for one in self.recommend(users)]

    def asker(self, bodies: Sequence[Tensors]) -> Callable[[int], float]:
        """Times the graphs of one body, given its place; gives back seconds."""

        def ask(place: int) -> float:
            tensors = dict(bodies[place % len(bodies)])
            started = time.perf_counter()
            for spec in self._recall.values():
                tensors |= self._run(spec, tensors)
            self._run(self._rank, tensors)
            return time.perf_counter() - started

        return ask

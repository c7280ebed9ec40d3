"""Context: user, session and excluded ids in; padded history rows, rows to exclude and user features out."""

from core.tensors import CONTEXT, EXCLUDE_ITEMS, PAD_ID, SESSION_ITEMS, USER_ATTRIBUTES, USER_ID
from serving.context import build_context
from serving.state import read_context_state
from serving.step import Tensors, answer_each, decode, version_folder


class TritonPythonModel:
    """Serves the context step of one release."""

    def initialize(self, args):
        self._state = read_context_state(version_folder(args))
        self._state.items.rows([PAD_ID])  # builds the map from ids to rows now, not at the first request

    def execute(self, requests):
        return answer_each(CONTEXT, requests, self._compute)

    def _compute(self, inputs: Tensors) -> Tensors:
        count = len(next(iter(inputs.values())))
        users = [user_id for (user_id,) in decode(inputs[USER_ID.name])] if USER_ID.name in inputs else [PAD_ID] * count
        session, exclude, attributes = (
            decode(inputs[tensor.name]) if tensor.name in inputs else [()] * count
            for tensor in (SESSION_ITEMS, EXCLUDE_ITEMS, USER_ATTRIBUTES)
        )
        states = self._state.store.lookup(users)
        state = self._state
        context = build_context(states, session, exclude, state.items, state.excluded, attributes, state.codebook)
        return context.tensors()

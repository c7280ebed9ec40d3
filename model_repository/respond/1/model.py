"""Respond: ranked rows in; the k best item ids with scores, reasons and the release id out."""

import numpy as np

from core.tensors import (
    DIVERSITY,
    FINAL_ORDER,
    K_RETURNED,
    RANKED_ROWS,
    RANKED_SCORES,
    REASON_ROWS,
    REASON_WEIGHTS,
    RELEASE,
    RESPOND,
)
from serving.respond import Order, Ranked, build_response
from serving.state import read_respond_state
from serving.step import Tensors, answer_each, encode, version_folder


class TritonPythonModel:
    """Serves the respond step of one release."""

    def initialize(self, args):
        state = read_respond_state(version_folder(args))
        self._reranker = state.reranker
        self._item_ids = encode(state.item_ids)
        self._release = state.release_id.encode()

    def execute(self, requests):
        return answer_each(RESPOND, requests, self._compute)

    def _compute(self, inputs: Tensors) -> Tensors:
        k = inputs[K_RETURNED.name][:, 0]
        ranked = Ranked(*(inputs[t.name] for t in (RANKED_ROWS, RANKED_SCORES, REASON_ROWS, REASON_WEIGHTS)))
        diversity, final = (inputs.get(tensor.name) for tensor in (DIVERSITY, FINAL_ORDER))
        order = Order(
            self._reranker,
            None if diversity is None else diversity[:, 0],
            None if final is None else final[:, 0] == 1,
        )
        release = np.full((len(k), 1), self._release, dtype=object)
        return build_response(k, ranked, self._item_ids, order).tensors() | {RELEASE.name: release}

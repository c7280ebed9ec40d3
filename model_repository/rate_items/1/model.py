"""Rate items: external item ids in; their rows, whether the catalogue has them, and the release id out."""

import numpy as np

from core.tensors import ASKED_ITEMS, ASKED_KNOWN, ASKED_ROWS, RATE_ITEMS, RELEASE
from serving.asked import asked_rows, read_asked_state
from serving.step import Tensors, answer_each, decode, version_folder


class TritonPythonModel:
    """Serves the rate_items step of one release."""

    def initialize(self, args):
        self._items, release_id = read_asked_state(version_folder(args))
        self._items.rows([""])  # builds the map from ids to rows now, not at the first request
        self._release = release_id.encode()

    def execute(self, requests):
        return answer_each(RATE_ITEMS, requests, self._compute)

    def _compute(self, inputs: Tensors) -> Tensors:
        rows, known = asked_rows(decode(inputs[ASKED_ITEMS.name]), self._items)
        release = np.full((len(rows), 1), self._release, dtype=object)
        return {ASKED_ROWS.name: rows, ASKED_KNOWN.name: known, RELEASE.name: release}

"""Name users: rows of the nearest users in; the k best user ids with cosines and the release id out."""

import numpy as np

from core.tensors import K_RETURNED, NAME_USERS, NEAREST_USER_ROWS, NEAREST_USER_SCORES, RELEASE, USER_ID
from serving.name_users import name_users
from serving.state import read_users_state
from serving.step import Tensors, answer_each, decode, encode, version_folder


class TritonPythonModel:
    """Serves the last step of similar users of one release."""

    def initialize(self, args):
        state = read_users_state(version_folder(args))
        self._users = state.users
        self._ids = encode(state.user_ids)
        self._release = state.release_id.encode()

    def execute(self, requests):
        return answer_each(NAME_USERS, requests, self._compute)

    def _compute(self, inputs: Tensors) -> Tensors:
        asking = self._users.rows(user_id for (user_id,) in decode(inputs[USER_ID.name]))
        k, rows, scores = (inputs[t.name] for t in (K_RETURNED, NEAREST_USER_ROWS, NEAREST_USER_SCORES))
        named = name_users(asking, k[:, 0], rows, scores, self._ids)
        return named | {RELEASE.name: np.full((len(k), 1), self._release, dtype=object)}

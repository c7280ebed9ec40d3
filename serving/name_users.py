"""The last step of similar users: rows become ids. Used by Triton's model.py and by the local pipeline alike."""

from __future__ import annotations

import numpy as np

from core.tensors import MASKED, SCORES, USER_IDS
from serving.respond import check_k


def name_users(
    asking: np.ndarray, k: np.ndarray, rows: np.ndarray, scores: np.ndarray, user_ids: np.ndarray
) -> dict[str, np.ndarray]:
    """The k nearest users of each, by tensor name; who asks is not among them.

    Args:
        asking: int64 ``(B,)``, rows of the users who ask; -1 is unknown and leaves nobody out.
        k: int ``(B,)``, 1..R each.
        rows: int64 ``(B, R)``, best first.
        scores: float32 ``(B, R)``; ``<= MASKED`` marks no user.
        user_ids: object ``(U + 1,)``, external ids by row, "" last.

    Raises:
        RequestError: A k outside 1..R.
    """
    check_k(k, rows.shape[1])
    width = int(k.max())
    skipped = (scores <= MASKED / 2) | (rows == asking[:, None])
    order = np.argsort(skipped, axis=1, kind="stable")[:, :width]
    empty = np.take_along_axis(skipped, order, axis=1) | (np.arange(width) >= k[:, None])
    taken = np.where(empty, len(user_ids) - 1, np.take_along_axis(rows, order, axis=1))
    return {
        USER_IDS.name: user_ids[taken],
        SCORES.name: np.where(empty, np.float32(0), np.take_along_axis(scores, order, axis=1)),
    }

"""The respond step: rows become strings. Used by Triton's model.py and by the local pipeline alike."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from core.errors import RequestError, ServerError
from core.tensors import ITEM_IDS, MASKED, REASON_IDS, REASON_SHARES, SCORES


@dataclass(frozen=True)
class Ranked:
    """What the rank step gives back, best first.

    Attributes:
        rows: int64 ``(B, R)``.
        scores: float32 ``(B, R)``; ``<= MASKED`` marks no item.
        reason_rows: int64 ``(B, R, 3)``; row I is none.
        reason_weights: float32 ``(B, R, 3)``.
    """

    rows: np.ndarray
    scores: np.ndarray
    reason_rows: np.ndarray
    reason_weights: np.ndarray


@dataclass(frozen=True)
class Response:
    """The answer for a batch, ``k`` being the largest k asked for in it.

    Attributes:
        item_ids: object ``(B, k)``, best first; "" pads short lists.
        scores: float32 ``(B, k)``; 0 where padded.
        reason_ids: object ``(B, k, 3)``; "" is none.
        reason_shares: float32 ``(B, k, 3)``; 0 where none.
    """

    item_ids: np.ndarray
    scores: np.ndarray
    reason_ids: np.ndarray
    reason_shares: np.ndarray

    def tensors(self) -> dict[str, np.ndarray]:
        """By tensor name."""
        return {
            ITEM_IDS.name: self.item_ids,
            SCORES.name: self.scores,
            REASON_IDS.name: self.reason_ids,
            REASON_SHARES.name: self.reason_shares,
        }


def build_response(k: np.ndarray, ranked: Ranked, item_ids: np.ndarray) -> Response:
    """Cuts each user's list to its k and names the items.

    Args:
        k: int ``(B,)``, 1..R each.
        ranked: Lists of R items.
        item_ids: object ``(I + 1,)``, external ids by row, the padding row last.

    Raises:
        RequestError: A k outside 1..R.
        ServerError: A score that is not a number.
    """
    longest = ranked.rows.shape[1]
    check_k(k, longest)
    if np.isnan(ranked.scores).any():
        raise ServerError("the rank step returned a score that is not a number", where="tensor ranked_scores")
    width = int(k.max())
    nothing = ranked.scores <= MASKED / 2
    if nothing.any():  # gaps, if a graph leaves any, close up; order is kept
        order = np.argsort(nothing, axis=1, kind="stable")
        ranked = Ranked(*(_take(array, order) for array in (ranked.rows, ranked.scores)),
                        *(_take(array, order) for array in (ranked.reason_rows, ranked.reason_weights)))  # fmt: skip
        nothing = np.take_along_axis(nothing, order, axis=1)
    empty = nothing[:, :width] | (np.arange(width) >= k[:, None])  # (B, k)
    none = len(item_ids) - 1
    return Response(
        item_ids[np.where(empty, none, ranked.rows[:, :width])],
        np.where(empty, np.float32(0), ranked.scores[:, :width]),
        item_ids[np.where(empty[..., None], none, ranked.reason_rows[:, :width])],
        np.where(empty[..., None], np.float32(0), ranked.reason_weights[:, :width]),
    )


def check_k(k: np.ndarray, longest: int) -> None:
    """Raises RequestError where a k lies outside 1..``longest``."""
    wrong = k[(k < 1) | (k > longest)]
    if len(wrong):
        raise RequestError(
            "k is out of range", where="tensor k", expected=f"a number from 1 to {longest}", found=str(int(wrong[0]))
        )


def _take(array: np.ndarray, order: np.ndarray) -> np.ndarray:
    return np.take_along_axis(array, order.reshape(order.shape + (1,) * (array.ndim - 2)), axis=1)

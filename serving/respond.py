"""The respond step: rows become strings. Used by Triton's model.py and by the local pipeline alike."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from core.errors import RequestError, ServerError
from core.tensors import ITEM_IDS, MASKED, REASON_IDS, REASON_SHARES, SCORES
from serving.rerank import Reranker, rerank_places


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


@dataclass(frozen=True)
class Order:
    """How the ranked candidates of a batch become its lists.

    Attributes:
        reranker: The release's.
        diversity: float ``(B,)`` as the request says; None takes the release's default.
        final: bool ``(B,)``, lists whose order stands; None is none of them.
    """

    reranker: Reranker
    diversity: np.ndarray | None = None
    final: np.ndarray | None = None


def build_response(k: np.ndarray, ranked: Ranked, item_ids: np.ndarray, order: Order | None = None) -> Response:
    """Orders each user's candidates, cuts them to its k and names the items.

    Scores stay those of the rank step, so that they need not fall along a list that was re-ranked.

    Args:
        k: int ``(B,)``, 1..R each.
        ranked: Lists of R items.
        item_ids: object ``(I + 1,)``, external ids by row, the padding row last.
        order: Re-ranking; None leaves the order as it is.

    Raises:
        RequestError: A k outside 1..R, or a diversity that cannot be had.
        ServerError: A score that is not a number.
    """
    check_k(k, ranked.rows.shape[1])
    width = int(k.max())
    ranked = ordered(ranked, width, order)
    empty = (ranked.scores <= MASKED / 2) | (np.arange(width) >= k[:, None])  # (B, k)
    none = len(item_ids) - 1
    return Response(
        item_ids[np.where(empty, none, ranked.rows)],
        np.where(empty, np.float32(0), ranked.scores),
        item_ids[np.where(empty[..., None], none, ranked.reason_rows)],
        np.where(empty[..., None], np.float32(0), ranked.reason_weights),
    )


def ordered(ranked: Ranked, width: int, order: Order | None) -> Ranked:
    """The first ``width`` items of each list after re-ranking; reasons stay with their items.

    Args:
        ranked: Lists of R items.
        width: 1..R.
        order: Re-ranking; None leaves the order as it is.

    Returns:
        Lists ``(B, width)``; a score ``<= MASKED`` marks a place that nothing could take.

    Raises:
        RequestError: A diversity that cannot be had.
        ServerError: A score that is not a number.
    """
    if np.isnan(ranked.scores).any():
        raise ServerError("the rank step returned a score that is not a number", where="tensor ranked_scores")
    nothing = ranked.scores <= MASKED / 2
    if nothing.any():  # gaps, if a graph leaves any, close up; order is kept
        ranked = _taken(ranked, np.argsort(nothing, axis=1, kind="stable"))
    places = None if order is None else _places(ranked, width, order)
    if places is None:
        return Ranked(*(array[:, :width] for array in _arrays(ranked)))
    best = _taken(ranked, np.maximum(places, 0))
    return replace(best, scores=np.where(places < 0, np.float32(MASKED), best.scores))


def _places(ranked: Ranked, width: int, order: Order) -> np.ndarray | None:
    """Places after re-ranking, None where every order stands."""
    diversity = order.reranker.wanted(order.diversity, len(ranked.rows))
    final = order.final
    if final is not None and final.all():
        return None
    if not diversity.any() and not order.reranker.has_rules:
        return None
    places = rerank_places(ranked.rows, ranked.scores, width, diversity, order.reranker)
    return places if final is None else np.where(final[:, None], np.arange(width), places)


def check_k(k: np.ndarray, longest: int) -> None:
    """Raises RequestError where a k lies outside 1..``longest``."""
    wrong = k[(k < 1) | (k > longest)]
    if len(wrong):
        raise RequestError(
            "k is out of range", where="tensor k", expected=f"a number from 1 to {longest}", found=str(int(wrong[0]))
        )


def _taken(ranked: Ranked, places: np.ndarray) -> Ranked:
    """The candidates at ``places`` ``(B, n)`` of each list."""
    users = np.arange(len(places))[:, None]
    return Ranked(*(array[users, places] for array in _arrays(ranked)))


def _arrays(ranked: Ranked) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    return ranked.rows, ranked.scores, ranked.reason_rows, ranked.reason_weights

"""What is held out whole: items, users, or all but a few events of some items."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from core.dataset import Dataset, Events, histories_of
from core.histories import Histories
from core.metrics import Truth, hits, ndcg, recall, truth_of
from core.tensors import MASKED
from training.content.lessons import user_vectors
from training.models.recall_base import RecallModel

HELD_OUT = 0.1


@dataclass(frozen=True)
class ColdItems:
    """A tenth of the items, whose events no model sees.

    Attributes:
        held: bool ``(I,)``.
        fitted: Events that are learned from.
        hidden: Events on the held-out items, of all splits.
    """

    held: np.ndarray
    fitted: Events
    hidden: Events


def hold_out_items(dataset: Dataset, splits: tuple[str, ...], seed: int) -> ColdItems:
    """Draws a tenth of the items with events and hides their events."""
    rng = np.random.default_rng(seed)
    some = np.unique(dataset.events.item_rows)
    held = np.zeros(dataset.n_items, dtype=bool)
    held[rng.choice(some, int(HELD_OUT * len(some)), replace=False)] = True
    fitted, everything = dataset.events.of_splits(splits), dataset.events
    return ColdItems(held, fitted.where(~held[fitted.item_rows]), everything.where(held[everything.item_rows]))


@dataclass(frozen=True)
class Asked:
    """Users with a history and something to find.

    Attributes:
        users: Rows, int64 ``(U,)``.
        truth: What they did, as places among the candidates.
        candidates: Item rows that are ranked, int64.
    """

    users: np.ndarray
    truth: Truth
    candidates: np.ndarray


def asked(events: Events, fitted: Events, candidates: np.ndarray, dataset: Dataset) -> Asked:
    """Users of ``events`` who have fitted events; the truth is what of it lies among ``candidates``."""
    place = np.full(dataset.n_items, -1)
    place[candidates] = np.arange(len(candidates))
    known = np.isin(events.user_rows, np.unique(fitted.user_rows)) & (place[events.item_rows] >= 0)
    chosen = events.where(known)
    users, index = np.unique(chosen.user_rows, return_inverse=True)
    return Asked(users, truth_of(index, place[chosen.item_rows], len(users)), candidates)


@dataclass(frozen=True)
class Values:
    """One value per user."""

    ndcg: np.ndarray
    recall: np.ndarray
    lists: np.ndarray


def judge(scores: np.ndarray, question: Asked, k: int = 10) -> Values:
    """NDCG and recall at k of scores ``(U, candidates)``; equal scores go to the lower row."""
    lists = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    hit = hits(lists, question.truth)
    return Values(ndcg(hit, question.truth.sizes, k), recall(hit, question.truth.sizes, k), lists)


def model_scores(model: RecallModel, histories: Histories, candidates: np.ndarray) -> np.ndarray:
    """Scores ``(n, candidates)`` of users with a history."""
    vectors = user_vectors(model, histories)
    return np.asarray(vectors @ model.item_vectors[candidates].T + model.item_bias[candidates])


def catalogue_scores(model: RecallModel, dataset: Dataset, fitted: Events, users: np.ndarray) -> np.ndarray:
    """Scores ``(n, I)`` with the users' fitted items masked."""
    histories = histories_of(fitted, dataset.n_users).select(users)
    scores = model_scores(model, histories, np.arange(dataset.n_items))
    scores[np.repeat(np.arange(len(users)), histories.lengths), histories.item_rows] = MASKED
    return scores

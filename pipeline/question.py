"""Who is asked about when a release is measured, what they really did, and the slices they fall into."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from core.dataset import Dataset, Events
from core.errors import SettingsError
from core.metrics import Truth, truth_of
from core.sections import Target
from training.ranking.windows import is_liked

HEAD_SHARE = 0.5
"""The most popular items that together have this share of the fitted events are the head, the others the tail."""


@dataclass(frozen=True)
class Question:
    """Who is asked about, and what they really did.

    Attributes:
        user_rows: Users with something to find, int64 ``(U,)``.
        truth: Their later items, without those already seen.
        warm: bool ``(U,)``, True for users with events in the fitted part.
        lengths: Fitted events of each user, int64 ``(U,)``.
    """

    user_rows: np.ndarray
    truth: Truth
    warm: np.ndarray
    lengths: np.ndarray


def held_out(dataset: Dataset, fit: tuple[str, ...], split: str, target: Target = "any") -> Question:
    """The users and truth of a split: items already in a user's fitted history are no truth, cold items are.

    Raises:
        SettingsError: Target "liked" on data without values.
    """
    if target == "liked" and not dataset.has_values:
        raise SettingsError("nothing is liked in data without values", where="--target", expected="any", found=target)
    seen = dataset.events.of_splits(fit)
    later = dataset.events.of_splits((split,))
    if target == "liked":
        later = later.where(is_liked(dataset, later))
    width = np.int64(dataset.n_items)
    new = ~np.isin(_pairs(later, width), _pairs(seen, width))
    users, index = np.unique(later.user_rows[new], return_inverse=True)
    truth = truth_of(index, later.item_rows[new], len(users))
    lengths = np.bincount(seen.user_rows, minlength=dataset.n_users)[users]
    return Question(users.astype(np.int64), truth, lengths > 0, lengths)


def user_slices(question: Question) -> dict[str, np.ndarray]:
    """bool ``(U,)`` by name: new users, then warm users in quarters by the length of their history."""
    slices = {"new": ~question.warm}
    if question.warm.any():
        ends = np.unique(np.quantile(question.lengths[question.warm], [0.25, 0.5, 0.75, 1.0]).astype(np.int64))
        start = 1
        for end in ends:
            slices[f"{start}-{end} events"] = (question.lengths >= start) & (question.lengths <= end)
            start = end + 1
    return {name: mask for name, mask in slices.items() if mask.any()}


def item_slices(counts: np.ndarray) -> dict[str, np.ndarray]:
    """bool ``(I,)`` by name: popular items (head), the others with events (tail), and those without (cold).

    Args:
        counts: Fitted events of each item ``(I,)``.
    """
    order = np.argsort(-counts, kind="stable")
    before = np.cumsum(counts[order]) - counts[order]
    head = np.zeros(len(counts), dtype=bool)
    head[order[before < HEAD_SHARE * counts.sum()]] = True
    return {"head": head & (counts > 0), "tail": ~head & (counts > 0), "cold": counts == 0}


def restrict(truth: Truth, kept: np.ndarray) -> Truth:
    """The truth among the items that ``kept`` (bool ``(I,)``) selects; users may be left without any."""
    inside = kept[truth.item_rows]
    owners = np.repeat(np.arange(len(truth.sizes)), truth.sizes)[inside]
    return truth_of(owners, truth.item_rows[inside], len(truth.sizes))


def _pairs(events: Events, width: np.int64) -> np.ndarray:
    keys: np.ndarray = events.user_rows.astype(np.int64) * width + events.item_rows
    return keys

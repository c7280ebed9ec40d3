"""Going on from an earlier model: the champion's weights by item id, a mix of new and old users, checkpoints."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from core.dataset import Dataset, Events
from core.histories import Histories
from core.vocabulary import Vocabulary
from training.checkpoints import Checkpoints


@dataclass
class Continuation:
    """How one recall model is trained beyond its data.

    Attributes:
        start: Tensors of the earlier model, None for a start from nothing.
        old_rows: int64 ``(I,)``, the earlier model's row of each item; -1 for new items.
        learners: bool ``(U,)``, users that gat learns from; all when None.
        checkpoints: Where the run's state is kept after each epoch; nowhere when None.
        kept: Filled by the fit: tensors that a later continuation starts from.
    """

    start: dict[str, torch.Tensor] | None = None
    old_rows: np.ndarray | None = None
    learners: np.ndarray | None = None
    checkpoints: Checkpoints | None = None
    kept: dict[str, torch.Tensor] = field(default_factory=dict)


def rows_in(old: Vocabulary, new: Vocabulary) -> np.ndarray:
    """Row in ``old`` of each id of ``new``, int64; -1 where it is new."""
    place = {item: row for row, item in enumerate(old.ids)}
    return np.array([place.get(item, -1) for item in new.ids], dtype=np.int64)


def mixed_learners(
    dataset: Dataset, events: Events, since: float, replay_share: float, rng: np.random.Generator
) -> np.ndarray:
    """Users with events after ``since`` (seconds), and uniformly drawn others so that they are ``replay_share``.

    Without any new event everybody is a learner.
    """
    fresh = np.zeros(dataset.n_users, dtype=bool)
    fresh[events.user_rows[events.timestamps > since]] = True
    if not fresh.any():
        return np.ones(dataset.n_users, dtype=bool)
    others = np.setdiff1d(np.unique(events.user_rows), np.flatnonzero(fresh))
    share = min(replay_share, 1 - 1e-9)
    wanted = min(len(others), round(int(fresh.sum()) * share / (1 - share)))
    fresh[rng.choice(others, wanted, replace=False)] = True
    return fresh


def only(histories: Histories, users: np.ndarray) -> Histories:
    """The same users, with an empty history where ``users`` (bool ``(U,)``) is False."""
    lengths = np.where(users, histories.lengths, 0)
    kept = np.repeat(users, histories.lengths)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    return Histories(
        starts, histories.item_rows[kept], histories.timestamps[kept], histories.values[kept], histories.kinds[kept]
    )


def aligned(new: np.ndarray, old: np.ndarray) -> np.ndarray:
    """The rotation ``(D, D)`` that brings rows ``new`` closest to rows ``old`` (orthogonal Procrustes)."""
    left, _, right = np.linalg.svd(new.astype(np.float64).T @ old.astype(np.float64))
    rotation: np.ndarray = left @ right
    return rotation

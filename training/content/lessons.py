"""What the tower learns from: a fitted recall model's item vectors, and users seen through one half of their events."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from core.dataset import Dataset, Events, histories_of
from core.histories import Histories, pad
from training.models.recall_base import RecallModel

BATCH = 128


@dataclass(frozen=True)
class Lessons:
    """Targets of one recall model.

    Attributes:
        tables: float32 ``(I, D)`` each: the model's own vectors.
        bias: float32 ``(I,)``.
        counts: int64 ``(I,)``, events per item.
        users: float32 ``(N, D)``, user vectors from one half of the events, those of held-out items left out.
        kept: bool sparse ``(N, I)``, that half.
        later: float32 sparse ``(N, I)``, the other half, and all events of held-out items.
        held_out: Items that teach nothing, int64, to choose by.
    """

    tables: dict[str, Tensor]
    bias: Tensor
    counts: np.ndarray
    users: Tensor
    kept: sparse.csr_matrix
    later: sparse.csr_matrix
    held_out: np.ndarray


def user_vectors(model: RecallModel, histories: Histories) -> Tensor:
    """Vectors ``(n, D)`` of n histories, batched by length."""
    order = np.argsort(histories.lengths, kind="stable")
    result = torch.zeros(len(histories), model.dimension)
    with torch.no_grad():
        for start in range(0, len(order), BATCH):
            part = order[start : start + BATCH]
            padded = pad(histories.select(part), model.n_items)
            inputs = (padded.rows, padded.ages, padded.values, padded.kinds)
            result[torch.from_numpy(part)] = model.user_vectors(*map(torch.from_numpy, inputs))
    return result


def make_lessons(
    model: RecallModel,
    dataset: Dataset,
    events: Events,
    *,
    least_events: int,
    held_out_share: float,
    max_users: int,
    rng: np.random.Generator,
) -> Lessons:
    """Draws users, halves their events, and holds out items.

    Args:
        model: Fitted on ``events``.
        dataset: Gives the numbers of users and items.
        events: What the model was fitted on.
        least_events: Items with fewer events neither teach nor are held out.
        held_out_share: Share of the other items that is held out.
        max_users: Users drawn where there are more.
        rng: Draws all of it.
    """
    counts = np.bincount(events.item_rows, minlength=dataset.n_items)
    teaching = np.flatnonzero(counts >= least_events)
    held_out = np.sort(rng.choice(teaching, int(held_out_share * len(teaching)), replace=False))
    is_held = np.zeros(dataset.n_items, dtype=bool)
    is_held[held_out] = True
    users = np.flatnonzero(np.bincount(events.user_rows, minlength=dataset.n_users) > 1)
    if len(users) > max_users:
        users = np.sort(rng.choice(users, max_users, replace=False))
    place = np.full(dataset.n_users, -1)
    place[users] = np.arange(len(users))
    drawn = events.where(place[events.user_rows] >= 0)
    first = (rng.random(len(drawn)) < 0.5) & ~is_held[drawn.item_rows]
    histories = histories_of(drawn.where(first), dataset.n_users).select(users)
    shape = (len(users), dataset.n_items)
    halves = [
        sparse.csr_matrix(
            (np.ones(len(half), np.float32), (place[half.user_rows], half.item_rows)), shape=shape, dtype=np.float32
        )
        for half in (drawn.where(first), drawn.where(~first))
    ]
    some = np.flatnonzero(histories.lengths > 0)
    tables = {name: table[:-1].detach() for name, table in model.item_tables().items()}
    return Lessons(
        tables,
        model.item_bias[:-1].detach(),
        counts,
        user_vectors(model, histories.select(some)),
        halves[0][some],
        halves[1][some],
        held_out,
    )

"""Training of the matrix factorisation: weighted iALS by alternating conjugate gradients."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from core.columns import release
from core.dataset import Dataset, Events
from core.kinds import kind_weights
from core.progress import SILENT, Progress
from core.settings import Settings
from core.spill import spill_root
from training.checkpoints import Checkpoint, Checkpoints
from training.continuation import Continuation
from training.distributed.group import ALONE, Group
from training.loop import check_finite, check_not_empty
from training.models import mf_numba, mf_torch
from training.models.mf_interactions import weighted_interactions
from training.models.mf_model import MfRecall
from training.models.mf_problem import Interactions, Objective, dealt_rows, rotate_to_eigenbasis
from training.models.recall_base import popularity_bias, recent_popularity

ADVICE = "raise mf.regularisation or mf.unobserved_ratio"
INITIAL_SPREAD = 0.1
"""Standard deviation of a fresh row's length."""


def fit_mf(
    dataset: Dataset,
    events: Events,
    settings: Settings,
    *,
    seed: int,
    progress: Progress = SILENT,
    continuation: Continuation | None = None,
    group: Group = ALONE,
) -> MfRecall:
    """Trains matrix factorisation on ``events``.

    Args:
        dataset: Gives the numbers of users and items.
        events: What to learn from, each (user, item) pair once.
        settings: The sections ``events``, ``mf``, ``recall`` and ``train``.
        seed: Decides the start values, and with them everything.
        progress: One step per epoch, with the loss over all pairs per event.
        continuation: Items that the earlier model knows start from its vectors. Every event still counts: a half-step
            solves a row from all of its events, and those left out would be forgotten. Its checkpoints are kept.
        group: Each worker solves its users and its items.

    Raises:
        TrainingError: No events, or factors that are not finite.
    """
    check_not_empty(events, "mf")
    chosen = settings.mf
    weights_of_kinds = kind_weights(dataset.kinds, settings.events.kind_weights)
    folder = spill_root(settings.paths.var) if events.is_mapped else None
    weighted = weighted_interactions(events, dataset.n_users, dataset.n_items, chosen, weights_of_kinds, folder)
    by_user, by_item = weighted.by_user, weighted.by_item
    check_finite(float(by_user.mass.sum()), "mf", 0, "check the data's values and times, and mf.value_slope")
    pairs = np.count_nonzero(by_user.mass) * np.count_nonzero(by_item.mass)
    all_weight = chosen.unobserved_ratio * float(by_user.mass.sum()) / pairs
    objective = Objective(all_weight, chosen.regularisation, chosen.frequency_power)
    start = _start_vectors(by_item, chosen.dimension, seed, continuation)
    item_mass, sides = by_item.mass, (_Side.of(by_user, objective, group), _Side.of(by_item, objective, group))
    weighting, mean_length = weighted.weighting, weighted.mean_length
    del by_user, by_item, weighted  # a worker among several keeps its part
    checkpoints = continuation.checkpoints if continuation is not None else None
    items, spectrum = _alternate(*sides, objective, settings, start, progress, group, checkpoints)
    recent = recent_popularity(events, dataset.n_items, settings.recall.popularity_half_life_days)
    vectors = torch.zeros(dataset.n_items + 1, chosen.dimension)
    vectors[:-1] = torch.from_numpy(items)
    return MfRecall(
        vectors,
        torch.from_numpy(popularity_bias(item_mass, chosen.popularity)),
        torch.from_numpy(popularity_bias(recent, 1.0)),
        torch.from_numpy(spectrum),
        weighting=weighting,
        regularisation=objective.regularisation,
        frequency_power=objective.frequency_power,
        all_items_mass=objective.all_weight * dataset.n_items,
        user_power=chosen.user_power,
        mean_length=mean_length,
        candidates=settings.recall.candidates,
    ).eval()


def _start_vectors(by_item: Interactions, dimension: int, seed: int, continuation: Continuation | None) -> np.ndarray:
    """Random rows float32 ``(I, D)``, the earlier model's where it knows the item, zero without events."""
    rng = np.random.default_rng(seed)
    items = rng.normal(0, INITIAL_SPREAD / np.sqrt(dimension), (len(by_item), dimension)).astype(np.float32)
    if continuation is not None and continuation.start is not None and continuation.old_rows is not None:
        old, rows = continuation.start["item_vectors"].numpy(), continuation.old_rows
        if old.shape[1] == dimension:
            items[rows >= 0] = old[rows[rows >= 0]]
    items[np.diff(by_item.starts) == 0] = 0
    return items


@dataclass(frozen=True)
class _Side:
    """Users, or items: those that this worker solves.

    Attributes:
        own: Their interactions.
        rows_of: By worker: which rows of the whole table are its own.
        rows: This worker's.
        ridge: float32 ``(n,)``, see :class:`Objective`.
        group: All workers.
    """

    own: Interactions
    rows_of: tuple[np.ndarray, ...]
    rows: np.ndarray
    ridge: np.ndarray
    group: Group

    @classmethod
    def of(cls, interactions: Interactions, objective: Objective, group: Group) -> _Side:
        rows_of = dealt_rows(interactions.starts, group.count)
        rows = rows_of[group.rank]
        return cls(interactions.part(rows), rows_of, rows, objective.ridge(interactions)[rows], group)

    def whole(self, vectors: np.ndarray) -> np.ndarray:
        """The table of all workers' vectors."""
        return self.group.gather_rows(vectors, self.rows_of)


def _alternate(
    user_side: _Side,
    item_side: _Side,
    objective: Objective,
    settings: Settings,
    start: np.ndarray,
    progress: Progress,
    group: Group,
    checkpoints: Checkpoints | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Item vectors ``(I, D)`` in the eigenbasis of their weighted Gram matrix, and its diagonal ``(D,)``.

    Each worker keeps the vectors of its own rows; the whole table is put together for the half-step that needs it.
    """
    chosen, all_weight = settings.mf, objective.all_weight
    half_step = mf_numba.half_step
    if chosen.solver == "torch":
        half_step = partial(mf_torch.half_step, device=torch.device(settings.train.device))
    items, users = start[item_side.rows], np.zeros((len(user_side.rows), chosen.dimension), dtype=np.float32)
    first = 1
    found = group.agree(checkpoints.newest) if checkpoints is not None else None
    if found is not None:
        items, users = (
            found.tensors[name].numpy()[side.rows] for name, side in (("items", item_side), ("users", user_side))
        )
        first = found.step + 1
        progress.record("mf loss", found.step, found.facts["loss"])
    with progress.bar("mf", chosen.epochs) as bar:
        for epoch in range(first, chosen.epochs + 1):
            items, users, spectrum = rotate_to_eigenbasis(items, users, all_weight, group)
            users = half_step(user_side.own, item_side.whole(items), users, spectrum, user_side.ridge, chosen.cg_steps)
            check_finite(float(users.sum()), "mf", epoch, ADVICE)
            release(user_side.own.columns, user_side.own.weights)
            users, items, spectrum = rotate_to_eigenbasis(users, items, all_weight, group)
            whole = user_side.whole(users)
            items = half_step(item_side.own, whole, items, spectrum, item_side.ridge, chosen.cg_steps)
            release(item_side.own.columns, item_side.own.weights)
            # by user: the table that is looked up at random is the items', which is the smaller one
            loss = mf_numba.loss(user_side.own, users, item_side.whole(items), all_weight, group)
            check_finite(loss, "mf", epoch, ADVICE)
            progress.record("mf loss", epoch, loss)
            if checkpoints is not None:
                tables = {"items": item_side.whole(items), "users": whole}
                if group.is_first:
                    tensors = {name: torch.from_numpy(table) for name, table in tables.items()}
                    checkpoints.save(Checkpoint(epoch, tensors, {"loss": loss}))
            bar.advance(note=f"loss {loss:.4f}")
    items, _, spectrum = rotate_to_eigenbasis(items, users, all_weight, group)
    return item_side.whole(items), spectrum

"""Training of the matrix factorisation: weighted iALS by alternating conjugate gradients."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch

from core.dataset import Dataset, Events, histories_of
from core.kinds import kind_weights
from core.progress import SILENT, Progress
from core.sections import MfSettings
from core.settings import Settings
from training.continuation import Continuation
from training.loop import check_finite, check_not_empty
from training.models import mf_numba, mf_torch
from training.models.event_weights import EventWeighting
from training.models.mf_model import MfRecall, length_factor
from training.models.mf_problem import Interactions, Objective, rotate_to_eigenbasis
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
) -> MfRecall:
    """Trains matrix factorisation on ``events``.

    Args:
        dataset: Gives the numbers of users and items.
        events: What to learn from, each (user, item) pair once.
        settings: The sections ``events``, ``mf``, ``recall`` and ``train``.
        seed: Decides the start values, and with them everything.
        progress: One step per epoch, with the loss over all pairs per event.
        continuation: Items that the earlier model knows start from its vectors. Every event still counts: a half-step
            solves a row from all of its events, and those left out would be forgotten.

    Raises:
        TrainingError: No events, or factors that are not finite.
    """
    check_not_empty(events, "mf")
    chosen = settings.mf
    histories = histories_of(events, dataset.n_users)
    weights_of_kinds = kind_weights(dataset.kinds, settings.events.kind_weights)
    weighting = EventWeighting.from_settings(chosen, weights_of_kinds).scaled_to(histories)
    lengths = histories.lengths
    mean_length = float(lengths[lengths > 0].mean())
    factors = length_factor(np.maximum(lengths, 1), mean_length, chosen.user_power)
    weights = weighting.of_histories(histories) * np.repeat(factors, lengths).astype(np.float32)
    check_finite(float(weights.sum()), "mf", 0, "check the data's values and times, and mf.value_slope")
    by_user, by_item = Interactions.both_ways(histories.starts, histories.item_rows, weights, dataset.n_items)
    pairs = np.count_nonzero(by_user.mass) * np.count_nonzero(by_item.mass)
    all_weight = chosen.unobserved_ratio * float(by_user.mass.sum()) / pairs
    objective = Objective(all_weight, chosen.regularisation, chosen.frequency_power)
    start = _start_vectors(by_item, chosen.dimension, seed, continuation)
    items, spectrum = _alternate(by_user, by_item, objective, chosen, settings.train.device, start, progress)
    recent = recent_popularity(events, dataset.n_items, settings.recall.popularity_half_life_days)
    vectors = torch.zeros(dataset.n_items + 1, chosen.dimension)
    vectors[:-1] = torch.from_numpy(items)
    return MfRecall(
        vectors,
        torch.from_numpy(popularity_bias(by_item.mass, chosen.popularity)),
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


def _alternate(
    by_user: Interactions,
    by_item: Interactions,
    objective: Objective,
    settings: MfSettings,
    device: str,
    items: np.ndarray,
    progress: Progress,
) -> tuple[np.ndarray, np.ndarray]:
    """Item vectors ``(I, D)`` in the eigenbasis of their weighted Gram matrix, and its diagonal ``(D,)``."""
    half_step = (
        mf_numba.half_step if settings.solver == "numba" else partial(mf_torch.half_step, device=torch.device(device))
    )
    users = np.zeros((len(by_user), settings.dimension), dtype=np.float32)
    ridges = objective.ridge(by_user), objective.ridge(by_item)
    with progress.bar("mf", settings.epochs) as bar:
        for epoch in range(settings.epochs):
            items, users, spectrum = rotate_to_eigenbasis(items, users, objective.all_weight)
            users = half_step(by_user, items, users, spectrum, ridges[0], settings.cg_steps)
            check_finite(float(users.sum()), "mf", epoch + 1, ADVICE)
            users, items, spectrum = rotate_to_eigenbasis(users, items, objective.all_weight)
            items = half_step(by_item, users, items, spectrum, ridges[1], settings.cg_steps)
            loss = mf_numba.loss(by_item, items, users, objective.all_weight)
            check_finite(loss, "mf", epoch + 1, ADVICE)
            progress.record("mf loss", epoch + 1, loss)
            bar.advance(note=f"loss {loss:.4f}")
    items, _, spectrum = rotate_to_eigenbasis(items, users, objective.all_weight)
    return items, spectrum

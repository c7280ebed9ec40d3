"""Fitting of the spectral recall: a truncated singular value decomposition, no training loop."""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse

from core.dataset import Dataset, Events, histories_of
from core.kinds import kind_weights
from core.progress import SILENT, Progress
from core.settings import Settings
from training.loop import check_finite, check_not_empty
from training.models.event_weights import EventWeighting
from training.models.recall_base import popularity_bias, recent_popularity
from training.models.spectral_model import SpectralRecall
from training.models.truncated_svd import truncated_svd

ADVICE = "check the data's values and times, and the event weights in [spectral]"


def fit_spectral(
    dataset: Dataset, events: Events, settings: Settings, *, seed: int, progress: Progress = SILENT
) -> SpectralRecall:
    """Filters the weighted user-item matrix ``X``.

    With ``R~ = Du^-a X Di^-b`` and its right singular vectors ``V`` and values ``s``, the scores of a history ``x``
    are ``x Di^-b V s^p V' Di^b``: GF-CF's ideal low-pass filter at ``p = 0``, a filter that falls off smoothly above.

    Args:
        dataset: Gives the numbers of users and items.
        events: What to learn from, each (user, item) pair once.
        settings: The sections ``events``, ``spectral`` and ``recall``.
        seed: Start of the decomposition.
        progress: One step in all.

    Raises:
        TrainingError: No events, or weights that are not finite.
    """
    check_not_empty(events, "spectral")
    chosen = settings.spectral
    histories = histories_of(events, dataset.n_users)
    weights_of_kinds = kind_weights(dataset.kinds, settings.events.kind_weights)
    weighting = EventWeighting.from_settings(chosen, weights_of_kinds).scaled_to(histories)
    weights = weighting.of_histories(histories)
    check_finite(float(weights.sum()), "spectral", 0, ADVICE)
    matrix = sparse.csr_matrix(
        (weights, histories.item_rows, histories.starts), shape=(dataset.n_users, dataset.n_items)
    )
    user_mass, item_mass = (np.asarray(matrix.sum(axis=axis, dtype=np.float64)).ravel() for axis in (1, 0))
    item_scale = _power(item_mass, chosen.item_power)
    normalised = sparse.diags_array(1 / _power(user_mass, chosen.user_power)) @ matrix
    normalised = (normalised @ sparse.diags_array(1 / item_scale)).astype(np.float32).tocsr()
    with progress.bar("spectral", 1) as bar:
        found = truncated_svd(normalised, chosen.dimension, np.random.default_rng(seed), chosen.iterations)
        bar.advance(note=f"singular values {found.values[0]:.3f} to {found.values[-1]:.3f}")
    # half of the response for either table: they then differ by a factor per item alone, and can be stored as one
    filtered = found.vectors * np.where(found.values > 0, found.values ** (chosen.response / 2), 0)
    history, target = torch.zeros(2, dataset.n_items + 1, chosen.dimension)
    history[:-1] = torch.from_numpy(filtered / item_scale[:, None])
    target[:-1] = torch.from_numpy(filtered * item_scale[:, None])
    recent = recent_popularity(events, dataset.n_items, settings.recall.popularity_half_life_days)
    return SpectralRecall(
        history,
        target,
        torch.from_numpy(popularity_bias(item_mass, chosen.popularity)),
        torch.from_numpy(popularity_bias(recent, 1.0)),
        weighting=weighting,
        candidates=settings.recall.candidates,
    ).eval()


def _power(mass: np.ndarray, power: float) -> np.ndarray:
    """``mass^power``, 1 where there is no mass: such rows are empty anyway."""
    return np.where(mass > 0, mass, 1.0) ** power

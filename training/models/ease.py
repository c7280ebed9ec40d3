"""Fitting of EASE: one matrix inverse, no training loop."""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse
from scipy.linalg import lapack

from core.dataset import Dataset, Events, histories_of
from core.errors import SettingsError, TrainingError
from core.kinds import kind_weights
from core.progress import SILENT, Progress
from core.settings import Settings
from training.loop import check_finite, check_not_empty
from training.models.ease_model import EaseRecall
from training.models.event_weights import EventWeighting
from training.models.recall_base import popularity_bias, recent_popularity
from training.models.truncated_svd import truncated_svd

ADVICE = "raise ease.regularisation"
BLOCK_CELLS = 16_000_000
"""Cells of the Gram matrix computed at once: 128 MB."""
SIMILARITY_DIMENSION = 32
"""D of the space for comparing items."""


def fit_ease(
    dataset: Dataset, events: Events, settings: Settings, *, seed: int, progress: Progress = SILENT
) -> EaseRecall:
    """Solves ``min_B |X - X B|^2 + reg |B|^2`` with zero diagonal (Steck 2019, equation 8).

    Args:
        dataset: Gives the numbers of users and items.
        events: What to learn from, each (user, item) pair once.
        settings: The sections ``events``, ``ease`` and ``recall``.
        seed: Start of the small space for comparing items; the weights do not depend on it.
        progress: One step in all.

    Raises:
        SettingsError: A catalogue above ``ease.max_items``.
        TrainingError: No events, or weights that are not finite.
    """
    check_not_empty(events, "ease")
    chosen = settings.ease
    if dataset.n_items > chosen.max_items:
        raise SettingsError(
            "the catalogue is too large for ease, whose table grows with its square",
            where="ease.max_items",
            expected=f"at most {chosen.max_items:,} items",
            found=f"{dataset.n_items:,} items, a table of {4 * (dataset.n_items + 1) ** 2 / 1e6:,.0f} MB",
            next_step="leave ease out of recall.sources, raise data.min_item_events, or raise ease.max_items",
        )
    histories = histories_of(events, dataset.n_users)
    weights_of_kinds = kind_weights(dataset.kinds, settings.events.kind_weights)
    weighting = EventWeighting.from_settings(chosen, weights_of_kinds).scaled_to(histories)
    weights = weighting.of_histories(histories)
    check_finite(float(weights.sum()), "ease", 0, "check the data's values and times")
    matrix = sparse.csr_matrix(
        (weights**chosen.weight_power, histories.item_rows, histories.starts), shape=(dataset.n_users, dataset.n_items)
    )
    with progress.bar("ease", 1) as bar:
        table = np.zeros((dataset.n_items + 1, dataset.n_items + 1), np.float32)
        table[:-1, :-1] = item_weights(matrix, chosen.regularisation).T
        check_finite(float(np.abs(table).sum()), "ease", 1, ADVICE)
        bar.advance()
    mass = np.bincount(histories.item_rows, weights, minlength=dataset.n_items)
    recent = recent_popularity(events, dataset.n_items, settings.recall.popularity_half_life_days)
    return EaseRecall(
        torch.from_numpy(table),
        torch.from_numpy(_similarity_vectors(matrix, np.random.default_rng(seed))),
        torch.from_numpy(popularity_bias(mass, chosen.popularity)),
        torch.from_numpy(popularity_bias(recent, 1.0)),
        weighting=weighting,
        weight_power=chosen.weight_power,
        candidates=settings.recall.candidates,
    ).eval()


def item_weights(matrix: sparse.csr_matrix, regularisation: float) -> np.ndarray:
    """EASE's ``B`` ``(I, I)``, float64: column j says how each item speaks for item j; the diagonal is zero.

    Args:
        matrix: ``X`` ``(U, I)``.
        regularisation: ``reg`` as a multiple of the mean squared norm of ``X``'s filled columns.

    Raises:
        TrainingError: The regularised Gram matrix is singular in float64.
    """
    gram = _gram(matrix)
    diagonal = np.einsum("ii->i", gram)
    diagonal += regularisation * diagonal[diagonal > 0].mean()
    factor, failed = lapack.dpotrf(gram, lower=0, overwrite_a=1)
    if not failed:
        solved, failed = lapack.dpotri(factor, lower=0, overwrite_c=1)
    if failed:
        raise TrainingError("ease has no solution", where="the item-item matrix", next_step=ADVICE)
    inverse: np.ndarray = np.triu(solved)
    inverse += np.triu(inverse, 1).T
    inverse /= -np.diag(inverse).copy()  # column j by P_jj
    np.fill_diagonal(inverse, 0)
    return inverse


def _gram(matrix: sparse.csr_matrix) -> np.ndarray:
    """``X'X`` as a dense float64 matrix in column order, as LAPACK works in place; made in blocks of items."""
    n_items = matrix.shape[1]
    by_item = matrix.T.tocsr()
    gram = np.zeros((n_items, n_items), order="F")
    width = max(1, BLOCK_CELLS // n_items)
    for first in range(0, n_items, width):
        gram[:, first : first + width] = (by_item[first : first + width] @ matrix).toarray().T
    return gram


def _similarity_vectors(matrix: sparse.csr_matrix, rng: np.random.Generator) -> np.ndarray:
    """Leading right singular vectors of ``X`` times their values, float32 ``(I + 1, D)``, last row zero."""
    found = truncated_svd(matrix.astype(np.float32), SIMILARITY_DIMENSION, rng)
    vectors = np.zeros((matrix.shape[1] + 1, SIMILARITY_DIMENSION), np.float32)
    vectors[:-1] = found.vectors * found.values
    return vectors

"""The ranker's item tables from one fit: similarity vectors, content vectors, statistics, attribute codes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from core.dataset import Dataset, Events
from core.features import UNKNOWN, FeatureTable
from core.histories import SECONDS_PER_DAY
from training.models.ranker import ItemTables
from training.models.ranker_shape import STATISTICS
from training.ratings.model import ValuePosterior

RECENT_SHARE = 0.1
"""The newest tenth of the events counts as recent."""
RETURN_DAYS = 7.0
"""Events this long after a user's first come from returning users, who are the ones that are served."""
PRIOR_EVENTS = 10.0
"""Mean values are shrunk towards 0 (the mean of all) as if each item had this many average events more."""
OVERSAMPLING, POWER_STEPS = 8, 6


def item_tables(
    dataset: Dataset,
    events: Events,
    vectors: Tensor,
    content_dimension: int,
    used: Sequence[str] = STATISTICS,
    rating: ValuePosterior | None = None,
) -> ItemTables:
    """Tables of one fit.

    Args:
        dataset: Gives the catalogue and the attributes.
        events: What the fit may know.
        vectors: ``(I + 1, D)`` item vectors of the recall fitted on ``events``.
        content_dimension: Width of the content vectors.
        used: Statistics that are used; the columns of others are 0.
        rating: Rating model fitted on ``events``.
    """
    statistics = item_statistics(events, dataset.n_items, has_times=dataset.has_times)
    statistics[:, [name not in used for name in STATISTICS]] = 0.0
    codes = dataset.item_features.codes
    padded = np.full((dataset.n_items + 1, max(1, codes.shape[1])), UNKNOWN, dtype=np.int64)
    padded[:-1, : codes.shape[1]] = codes
    return ItemTables(
        vectors,
        torch.from_numpy(_with_padding(content_vectors(dataset.item_features, content_dimension))),
        torch.from_numpy(_with_padding(statistics)),
        torch.from_numpy(padded),
        rating,
    )


def item_statistics(events: Events, n_items: int, *, has_times: bool) -> np.ndarray:
    """Standardised statistics float32 ``(I, S)``, columns as in ``STATISTICS``; those of time are 0 without times."""
    count = np.bincount(events.item_rows, minlength=n_items).astype(np.float64)
    value_sum = np.bincount(events.item_rows, weights=events.values, minlength=n_items)
    columns = dict.fromkeys(STATISTICS, np.zeros(n_items))
    columns["popularity"] = _standardised(np.log1p(count))
    columns["mean_value"] = value_sum / (count + PRIOR_EVENTS)
    if has_times and len(events):
        times = events.timestamps
        recent = np.bincount(events.item_rows[times > np.quantile(times, 1 - RECENT_SHARE)], minlength=n_items).astype(
            np.float64
        )
        first_of_user = _first_times(events.user_rows, times)
        returning = times > first_of_user[events.user_rows] + RETURN_DAYS * SECONDS_PER_DAY
        first_of_item = _first_times(events.item_rows, times, n_items)
        age_days = np.where(count > 0, (times.max() - first_of_item) / SECONDS_PER_DAY, 0.0)
        columns["recent_popularity"] = _standardised(np.log1p(recent))
        columns["returning_popularity"] = _standardised(
            np.log1p(np.bincount(events.item_rows[returning], minlength=n_items))
        )
        columns["trend"] = _standardised(np.log((recent + 1) / (count * RECENT_SHARE + 1)))
        columns["age"] = _standardised(np.log1p(age_days))
    return np.stack([columns[name] for name in STATISTICS], 1).astype(np.float32)


def content_vectors(features: FeatureTable, dimension: int) -> np.ndarray:
    """Attribute vectors float32 ``(I, <= dimension)`` whose cosines approximate the overlap of rare-weighted codes.

    The code matrix, weighted by ``log(I / count)`` per code and with rows of length 1, is projected on its leading
    right singular vectors. Items without known codes, and catalogues without attributes, have zero vectors.
    """
    matrix = _code_matrix(features)
    vectors = matrix @ _leading_directions(matrix, dimension)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 1e-6).astype(np.float32)


def _leading_directions(matrix: sparse.csr_matrix, dimension: int) -> np.ndarray:
    """Right singular vectors ``(codes, <= dimension)`` by block power iteration (Halko et al. 2011, alg. 4.4).

    ARPACK is no choice here: where singular values repeat, as those of codes do, it restarts from random vectors.
    """
    n_codes = matrix.shape[1]
    if n_codes <= dimension:
        return np.eye(n_codes)
    basis = np.random.default_rng(0).standard_normal((n_codes, min(dimension + OVERSAMPLING, n_codes)))
    for _ in range(POWER_STEPS):
        basis, _ = np.linalg.qr(matrix.T @ (matrix @ basis))
    _, _, rotation = np.linalg.svd(matrix @ basis, full_matrices=False)
    directions: np.ndarray = basis @ rotation[:dimension].T
    return directions


def _code_matrix(features: FeatureTable) -> sparse.csr_matrix:
    n_items = len(features.codes)
    blocks, start = [], 0
    for column in features.columns:
        codes = features.codes[:, start : start + column.width]
        start += column.width
        items, slots = np.nonzero(codes != UNKNOWN)
        block = sparse.csr_matrix(
            (np.ones(len(items)), (items, codes[items, slots])), shape=(n_items, column.cardinality)
        )
        block.data[:] = 1.0  # a tag given twice counts once
        weights = np.log(n_items / np.maximum(np.asarray(block.sum(0)).ravel(), 1))
        blocks.append(block @ sparse.diags(weights))
    matrix = sparse.hstack(blocks, format="csr") if blocks else sparse.csr_matrix((n_items, 1))
    lengths = np.sqrt(np.asarray(matrix.multiply(matrix).sum(1)).ravel())
    return sparse.diags(np.divide(1, lengths, out=np.zeros_like(lengths), where=lengths > 0)) @ matrix


def _first_times(rows: np.ndarray, times: np.ndarray, size: int | None = None) -> np.ndarray:
    first = np.full(size or int(rows.max()) + 1, np.inf)
    np.minimum.at(first, rows, times)
    return first


def _standardised(values: np.ndarray) -> np.ndarray:
    deviation = values.std()
    return (values - values.mean()) / deviation if deviation > 1e-9 else np.zeros_like(values, dtype=np.float64)


def _with_padding(table: np.ndarray) -> np.ndarray:
    return np.concatenate([table, np.zeros((1, table.shape[1]), table.dtype)])

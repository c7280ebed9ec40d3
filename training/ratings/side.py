"""What is known about users and items beside their values: attributes, how active they are, whom they resemble.

The rating model's vectors are drawn towards a linear function of these columns, so that users and items with few
values start from those like them (Macau: Simm et al. 2017). Which items somebody rated at all says as much as the
values do (SVD++: Koren 2008); it enters as the leading directions of the normalised user-item matrix.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from core.features import UNKNOWN, FeatureTable

OVERSAMPLING, POWER_STEPS = 8, 6
ACTIVITY_COLUMNS = 3
"""Constant, activity, activity squared."""
FEW_EVENTS = 5.0
"""The spectral part of a row with so many events counts half."""


@dataclass(frozen=True)
class Directions:
    """The spectral part of both sides.

    Attributes:
        items: ``(I, S)``; a user's columns are the sum over the history's items, divided by sqrt(length).
        users: ``(U, S)``, likewise for an item over its users.
    """

    items: np.ndarray
    users: np.ndarray


@dataclass(frozen=True)
class Activity:
    """Standardised log of a count, held within what the fit has seen.

    Attributes:
        mean: Mean of ``log1p(count)`` over rows with events.
        scale: Its deviation.
        least: Smallest standardised value.
        most: Largest one.
    """

    mean: float
    scale: float
    least: float
    most: float

    @classmethod
    def of_counts(cls, counts: np.ndarray) -> Activity:
        """Fits the scale on the rows that have events."""
        logs = np.log1p(counts[counts > 0].astype(np.float64))
        mean, scale = float(logs.mean()), max(float(logs.std()), 1e-3)
        return cls(mean, scale, float((logs.min() - mean) / scale), float((logs.max() - mean) / scale))

    def __call__(self, counts: np.ndarray) -> np.ndarray:
        """Standardised, float64, same shape; a count of 0 is the least one seen."""
        scaled = (np.log1p(counts) - self.mean) / self.scale
        held: np.ndarray = np.clip(scaled, self.least, self.most)
        return held


def directions(interactions: sparse.csr_matrix, size: int, rng: np.random.Generator) -> Directions:
    """Leading ``size`` directions of the matrix with entries ``1 / sqrt(n_u n_i)`` (block power iteration).

    Args:
        interactions: 0/1, ``(U, I)``.
        size: S; at most ``min(U, I)`` are found, further columns are zero.
        rng: Start of the iteration.
    """
    n_users, n_items = interactions.shape
    by_user, by_item = (1 / np.sqrt(np.maximum(np.asarray(interactions.sum(axis)).ravel(), 1)) for axis in (1, 0))
    matrix = sparse.diags(by_user) @ interactions @ sparse.diags(by_item)
    width = min(size + OVERSAMPLING, n_users, n_items)
    basis = rng.standard_normal((n_items, width))
    for _ in range(POWER_STEPS):
        basis, _ = np.linalg.qr(matrix.T @ (matrix @ basis))
    left, _, right = np.linalg.svd(matrix @ basis, full_matrices=False)
    found = min(size, width)
    items, users = np.zeros((n_items, size)), np.zeros((n_users, size))
    items[:, :found] = by_item[:, None] * (basis @ right[:found].T) * np.sqrt(n_users)
    users[:, :found] = by_user[:, None] * left[:, :found] * np.sqrt(n_items)
    return Directions(items, users)


def spectral_part(counts: np.ndarray, summed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Spectral columns of one side ``(n, S)``, and the mean ``(S,)`` that was taken off.

    ``(sum / sqrt(n) - mean) * n / (n + 5)``: a row without events stands where the average row does.

    Args:
        counts: Events per row ``(n,)``.
        summed: Sums of the other side's direction vectors over the row's events, ``(n, S)``.
    """
    scaled = summed / np.sqrt(np.maximum(counts, 1))[:, None]
    mean = scaled[counts > 0].mean(0)
    trust = counts / (counts + FEW_EVENTS)
    return (scaled - mean) * trust[:, None], mean


def side_columns(
    features: FeatureTable, counts: np.ndarray, activity: Activity, spectral: np.ndarray
) -> sparse.csr_matrix:
    """All side columns of one side, ``(n, 3 + S + codes)``: activity, spectral part, attribute codes.

    Args:
        features: Attribute codes of the side.
        counts: Events per row ``(n,)``.
        activity: Scale of the counts.
        spectral: See :func:`spectral_part`.
    """
    active = activity(counts)
    dense = np.column_stack([np.ones(len(counts)), active, active**2, spectral])
    return sparse.hstack([sparse.csr_matrix(dense), one_hot(features)], format="csr")


def code_offsets(features: FeatureTable) -> np.ndarray:
    """Where the codes of each slot begin when all columns' codes are laid end to end, int64 ``(F,)``.

    The slots of a tags column share their codes.
    """
    sizes = [column.cardinality for column in features.columns]
    starts = np.concatenate([[0], np.cumsum(sizes)])[:-1] if sizes else np.zeros(0)
    widths = [column.width for column in features.columns]
    return np.repeat(starts, widths).astype(np.int64)


def code_count(features: FeatureTable) -> int:
    """Codes of all columns together."""
    return sum(column.cardinality for column in features.columns)


def one_hot(features: FeatureTable) -> sparse.csr_matrix:
    """0/1 matrix ``(n, codes)``; UNKNOWN is no column's."""
    codes = features.codes
    rows, slots = np.nonzero(codes != UNKNOWN)
    matrix = sparse.csr_matrix(
        (np.ones(len(rows)), (rows, codes[rows, slots] + code_offsets(features)[slots])),
        shape=(len(codes), code_count(features)),
    )
    matrix.data[:] = 1.0  # a tag given twice counts once
    return matrix

"""What a rating model has to beat: the mean, the item's mean, and biases of users and items."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from core.dataset import Events

SHRINKAGE = 5.0
"""Events at the mean that every bias is shrunk with."""
ROUNDS = 10


@dataclass(frozen=True)
class Baselines:
    """Fitted baselines.

    Attributes:
        mean: Mean raw value.
        item_means: Mean raw value per item, the overall mean where it has none, ``(I,)``.
        user_biases: ``(U,)``.
        item_biases: ``(I,)``.
    """

    mean: float
    item_means: np.ndarray
    user_biases: np.ndarray
    item_biases: np.ndarray

    def predict(self, user_rows: np.ndarray, item_rows: np.ndarray) -> dict[str, np.ndarray]:
        """Raw values of each pair by baseline, float64 ``(pairs,)`` each."""
        return {
            "global mean": np.full(len(user_rows), self.mean),
            "item mean": self.item_means[item_rows],
            "user and item biases": self.mean + self.user_biases[user_rows] + self.item_biases[item_rows],
        }


def fit_baselines(events: Events, n_users: int, n_items: int) -> Baselines:
    """Fits on the events with known values; biases in turn, shrunk (Koren 2008, section 2.1)."""
    known = events.where(np.isfinite(events.raw_values))
    values = known.raw_values.astype(np.float64)
    mean = float(values.mean())
    centred = values - mean
    users, items = np.zeros(n_users), np.zeros(n_items)
    for _ in range(ROUNDS):
        items = _shrunk_means(known.item_rows, centred - users[known.user_rows], n_items, SHRINKAGE)
        users = _shrunk_means(known.user_rows, centred - items[known.item_rows], n_users, SHRINKAGE)
    return Baselines(mean, mean + _shrunk_means(known.item_rows, centred, n_items, 0.0), users, items)


def _shrunk_means(rows: np.ndarray, values: np.ndarray, size: int, shrinkage: float) -> np.ndarray:
    counts = np.bincount(rows, minlength=size) + shrinkage
    sums = np.bincount(rows, weights=values, minlength=size)
    return np.divide(sums, counts, out=np.zeros(size), where=counts > 0)

"""Metrics of predicted values and of the probability that an item is liked.

Arrays in, numbers out; every pair weighs the same unless a docstring says otherwise.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

CALIBRATION_BINS = 15
LEAST_PROBABILITY = 1e-7


def rmse(actual: np.ndarray, predicted: np.ndarray) -> float:
    """Root mean squared error.

    >>> rmse(np.array([1.0, 3.0]), np.array([1.0, 5.0])) == 2**0.5
    True
    """
    return float(np.sqrt(np.mean((actual.astype(np.float64) - predicted) ** 2)))


def mae(actual: np.ndarray, predicted: np.ndarray) -> float:
    """Mean absolute error.

    >>> mae(np.array([1.0, 3.0]), np.array([1.0, 5.0]))
    1.0
    """
    return float(np.mean(np.abs(actual.astype(np.float64) - predicted)))


def auc(liked: np.ndarray, scores: np.ndarray) -> float:
    """Share of (liked, other) pairs in the right order, ties counting half; NaN where one kind is missing.

    >>> auc(np.array([True, False, True]), np.array([0.9, 0.5, 0.5]))
    0.75
    """
    hit, miss = scores[liked], np.sort(scores[~liked])
    if len(hit) == 0 or len(miss) == 0:
        return float("nan")
    below = np.searchsorted(miss, hit, "left") + np.searchsorted(miss, hit, "right")
    return float(below.mean() / (2 * len(miss)))


def gauc(liked: np.ndarray, scores: np.ndarray, users: np.ndarray) -> float:
    """AUC within each user, weighted by the user's pairs (Zhu et al. 2017); users of one kind alone do not count.

    >>> gauc(np.array([True, False, True]), np.array([0.9, 0.5, 0.1]), np.array([0, 0, 1]))
    1.0
    """
    order = np.argsort(users, kind="stable")
    starts = np.flatnonzero(np.diff(users[order], prepend=users[order[:1]] - 1))
    total, weight = 0.0, 0
    for places in np.split(order, starts[1:]):
        value = auc(liked[places], scores[places])
        if np.isfinite(value):
            total, weight = total + value * len(places), weight + len(places)
    return total / weight if weight else float("nan")


def log_loss(liked: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean negative log likelihood.

    >>> round(log_loss(np.array([True, False]), np.array([0.5, 0.5])), 4)
    0.6931
    """
    held = np.clip(probabilities.astype(np.float64), LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)
    return float(-np.mean(np.where(liked, np.log(held), np.log1p(-held))))


@dataclass(frozen=True)
class CalibrationCurve:
    """Reliability by bins of equal width; empty bins are left out.

    Attributes:
        predicted: Mean probability per bin.
        actual: Share of liked pairs per bin.
        counts: Pairs per bin.
    """

    predicted: tuple[float, ...]
    actual: tuple[float, ...]
    counts: tuple[int, ...]


def calibration_curve(liked: np.ndarray, probabilities: np.ndarray, bins: int = CALIBRATION_BINS) -> CalibrationCurve:
    """What came of each probability."""
    place = np.minimum((probabilities * bins).astype(int), bins - 1)
    counts = np.bincount(place, minlength=bins)
    filled = counts > 0
    sums = (np.bincount(place, weights=w, minlength=bins)[filled] / counts[filled] for w in (probabilities, liked))
    predicted, actual = (tuple(map(float, values)) for values in sums)
    return CalibrationCurve(predicted, actual, tuple(map(int, counts[filled])))


def expected_calibration_error(curve: CalibrationCurve) -> float:
    """Mean distance between probability and share, weighted by pairs (Naeini et al. 2015).

    >>> round(expected_calibration_error(CalibrationCurve((0.2, 0.9), (0.3, 0.9), (1, 1))), 3)
    0.05
    """
    counts = np.array(curve.counts)
    return float((np.abs(np.subtract(curve.predicted, curve.actual)) * counts).sum() / counts.sum())


def decision_metrics(liked: np.ndarray, said: np.ndarray) -> dict[str, float]:
    """Accuracy, precision, recall and F1 of a yes or no; 0 where nothing was said to be liked.

    >>> decision_metrics(np.array([True, True, False]), np.array([True, False, False]))["recall"]
    0.5
    """
    both, n_said, n_liked = int((liked & said).sum()), int(said.sum()), int(liked.sum())
    return {
        "accuracy": float((liked == said).mean()),
        "precision": both / n_said if n_said else 0.0,
        "recall": both / n_liked if n_liked else 0.0,
        "f1": 2 * both / (n_said + n_liked) if n_said + n_liked else 0.0,
    }


def rating_metrics(
    actual: np.ndarray,
    predicted: np.ndarray,
    probabilities: np.ndarray,
    liked: np.ndarray,
    users: np.ndarray,
    cut: float,
) -> dict[str, Any]:
    """All of the above as plain numbers.

    Args:
        actual: Raw values ``(pairs,)``.
        predicted: Predicted values ``(pairs,)``.
        probabilities: Probability of being liked ``(pairs,)``.
        liked: bool ``(pairs,)``.
        users: User rows ``(pairs,)``.
        cut: Probability from which on "liked" is said.
    """
    return {
        "pairs": len(actual),
        "rmse": rmse(actual, predicted),
        "mae": mae(actual, predicted),
        "auc": auc(liked, probabilities),
        "gauc": gauc(liked, probabilities, users),
        "log_loss": log_loss(liked, probabilities),
        "ece": expected_calibration_error(calibration_curve(liked, probabilities)),
        "cut": cut,
        **decision_metrics(liked, probabilities >= cut),
    }


def curve_as_json(curve: CalibrationCurve) -> dict[str, Any]:
    """Plain values."""
    return {name: list(values) for name, values in asdict(curve).items()}

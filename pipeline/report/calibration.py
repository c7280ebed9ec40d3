"""From ranking scores to probabilities, and how far these can be trusted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

BINS = 10


@dataclass(frozen=True)
class Reliability:
    """Predicted against observed.

    Attributes:
        predicted: Mean predicted probability of each bin, ascending, float64 ``(bins,)``.
        observed: Share that came true in each bin ``(bins,)``.
        counts: Recommendations in each bin ``(bins,)``.
        expected_calibration_error: Mean of ``|predicted - observed|`` weighted by counts.
    """

    predicted: np.ndarray
    observed: np.ndarray
    counts: np.ndarray
    expected_calibration_error: float


def calibrate_probabilities(scores: np.ndarray, labels: np.ndarray, users: np.ndarray) -> np.ndarray:
    """Probabilities by Platt scaling (Platt 1999), cross-fitted over two halves of the users.

    ``p = sigmoid(a s + b)`` with a and b from the other half, so that no user is judged by a fit that saw them.

    Args:
        scores: float ``(n,)``.
        labels: bool ``(n,)``.
        users: int ``(n,)``, whose score it is.

    Returns:
        float64 ``(n,)``, NaN where the other half has no score.
    """
    probabilities = np.full(len(scores), np.nan)
    for half in (0, 1):
        own = users % 2 == half
        if own.any() and (~own).any():
            slope, shift = _fit(scores[~own], labels[~own])
            probabilities[own] = 1 / (1 + np.exp(-(slope * scores[own] + shift)))
    return probabilities


def reliability(probabilities: np.ndarray, labels: np.ndarray, bins: int = BINS) -> Reliability:
    """Groups predictions into bins of equal count.

    >>> found = reliability(np.array([0.1, 0.1, 0.9, 0.9]), np.array([0, 0, 1, 0]), bins=2)
    >>> found.observed.tolist(), round(found.expected_calibration_error, 2)
    ([0.0, 0.5], 0.25)
    """
    parts = [part for part in np.array_split(np.argsort(probabilities, kind="stable"), bins) if len(part)]
    predicted = np.array([probabilities[part].mean() for part in parts])
    observed = np.array([labels[part].mean() for part in parts])
    counts = np.array([len(part) for part in parts])
    error = float((np.abs(predicted - observed) * counts).sum() / max(counts.sum(), 1))
    return Reliability(predicted, observed, counts, error)


def _fit(scores: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Slope and shift with the lowest logistic loss; a small ridge keeps separable data finite."""
    # Platt's targets: one pseudo-observation per class keeps probabilities away from 0 and 1
    positives = labels.sum()
    targets = np.where(labels, (positives + 1) / (positives + 2), 1 / (len(labels) - positives + 2))

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        logits = parameters[0] * scores + parameters[1]
        errors = 1 / (1 + np.exp(-logits)) - targets
        value = np.logaddexp(0, logits).mean() - (targets * logits).mean() + 1e-6 * (parameters**2).sum()
        return value, np.array([(errors * scores).mean(), errors.mean()]) + 2e-6 * parameters

    found = minimize(loss, np.array([1.0, -1.0]), jac=True, method="L-BFGS-B")
    return float(found.x[0]), float(found.x[1])

from __future__ import annotations

import numpy as np
import pytest

from core.rating_metrics import auc, calibration_curve, decision_metrics, gauc, log_loss, rating_metrics


def test_auc_is_the_share_of_ordered_pairs() -> None:
    rng = np.random.default_rng(0)
    liked, scores = rng.random(60) < 0.4, rng.integers(0, 8, 60) / 8
    pairs = [(s > o) + 0.5 * (s == o) for s in scores[liked] for o in scores[~liked]]
    assert auc(liked, scores) == pytest.approx(np.mean(pairs))


def test_auc_of_one_kind_is_unknown() -> None:
    assert np.isnan(auc(np.ones(3, bool), np.arange(3.0)))


def test_gauc_weighs_users_by_their_pairs() -> None:
    users = np.array([2, 2, 0, 0, 0, 5])
    liked = np.array([1, 0, 1, 0, 0, 1], dtype=bool)
    scores = np.array([0.1, 0.9, 0.9, 0.1, 0.2, 0.5])
    assert gauc(liked, scores, users) == pytest.approx((2 * 0 + 3 * 1) / 5)


def test_log_loss_of_certainty_stays_finite() -> None:
    assert np.isfinite(log_loss(np.array([True, False]), np.array([0.0, 1.0])))


def test_calibration_counts_every_pair_once() -> None:
    probabilities = np.array([0.0, 0.05, 0.5, 0.99, 1.0])
    curve = calibration_curve(np.array([False, True, True, True, True]), probabilities, bins=10)
    assert curve.counts == (2, 1, 2)
    assert curve.actual == (0.5, 1.0, 1.0)


def test_decisions_without_a_yes_are_zero() -> None:
    found = decision_metrics(np.array([True, False]), np.array([False, False]))
    assert found == {"accuracy": 0.5, "precision": 0.0, "recall": 0.0, "f1": 0.0}


def test_perfect_predictions_are_perfect() -> None:
    actual = np.array([1.0, 5.0, 4.0, 2.0])
    liked = actual >= 4
    found = rating_metrics(actual, actual, liked.astype(float), liked, np.array([0, 0, 1, 1]), 0.5)
    assert (found["rmse"], found["auc"], found["gauc"], found["f1"], found["accuracy"]) == (0, 1, 1, 1, 1)
    assert found["ece"] == 0

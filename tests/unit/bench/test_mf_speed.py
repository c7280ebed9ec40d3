"""The speed comparison: what it computes from curves and clocks, and that both sides mean the same objective."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from bench.adapters.contract import Problem
from bench.mf_speed import comparison, first_staying
from bench.speed_ours import solve, translated


def test_first_staying_takes_the_fewest_epochs_from_which_quality_stays_at_the_target() -> None:
    curve = {1: 0.1, 2: 0.3, 3: 0.29, 4: 0.31}
    assert first_staying(curve, 0.3) == 4
    assert first_staying(curve, 0.29) == 2
    assert first_staying(curve, 0.1) == 1
    assert first_staying(curve, 0.4) is None


def test_comparison_counts_the_peers_fastest_solver_by_medians() -> None:
    found = comparison([1.0, 2.0, 1.0], [[9.0, 9.0, 9.0], [3.0, 4.0, 2.0]])
    assert found == {"times_faster": 3.0, "times_faster_per_turn": [3.0, 2.0, 2.0]}


def test_comparison_is_silent_when_one_side_never_reached_the_target() -> None:
    assert comparison([], [[1.0]]) == {}
    assert comparison([1.0], [[], []]) == {}


@pytest.fixture(scope="module")
def problem() -> Problem:
    """Users of two tastes; the last user and the last item have no events."""
    rng = np.random.default_rng(0)
    tastes = np.arange(40) % 2
    dense = rng.random((40, 20)) < np.where(tastes[:, None] == np.arange(20) % 2, 0.6, 0.05)
    matrix = sp.csr_matrix(np.pad(dense, ((0, 1), (0, 1))))
    users, items = matrix.nonzero()
    return Problem(41, 21, users, items, np.zeros(len(users)), matrix, np.arange(41))


def test_translated_settings_weigh_zeros_as_the_peer_does(problem: Problem) -> None:
    """A pair's zero weighs alpha0: the ratio to the events' weight times the events, over the filled pairs."""
    one = {"n_components": 4, "alpha0": 0.2, "reg": 0.01, "train_epochs": 3}
    ratio = float(next(text for text in translated(problem, one) if "ratio" in text).split("=")[1])
    assert ratio * len(problem.user_rows) / (40 * 20) == pytest.approx(0.2)


def test_ours_learns_the_tastes(problem: Problem) -> None:
    one = {"n_components": 4, "alpha0": 0.2, "reg": 0.01, "train_epochs": 6}
    (solved,) = solve(problem, [one], seed=0)
    scores = solved.score(np.arange(40))
    assert scores.shape == (40, 21)
    own = np.arange(40)[:, None] % 2 == np.arange(20) % 2
    assert scores[:, :20][own].mean() > 3 * abs(scores[:, :20][~own].mean())
    assert solved.fit_seconds > 0

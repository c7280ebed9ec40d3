from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp

from bench.adapters import ease, gfcf, popularity
from bench.adapters.contract import CannotRunError, Problem


@pytest.fixture(scope="module")
def problem() -> Problem:
    rng = np.random.default_rng(0)
    matrix = sp.csr_matrix(rng.random((30, 12)) < 0.3)
    users, items = matrix.nonzero()
    return Problem(
        30, 12, users.astype(np.int32), items.astype(np.int32), np.arange(1.0, len(users) + 1), matrix, np.arange(30)
    )


def scores(module: object, problem: Problem, **settings: float) -> np.ndarray:
    """All users' scores by one settings."""
    (solved,) = module.solve(problem, [settings], 0)  # type: ignore[attr-defined]
    return np.asarray(solved.score(np.arange(problem.n_users)))


def test_ease_solves_its_constrained_least_squares(problem: Problem) -> None:
    x = problem.matrix().toarray().astype(np.float64)
    weights = np.zeros((12, 12))
    for item in range(12):  # one ridge regression per item, its own column left out
        others = [other for other in range(12) if other != item]
        a = x[:, others]
        weights[others, item] = np.linalg.solve(a.T @ a + 5 * np.eye(11), a.T @ x[:, item])
    np.testing.assert_allclose(scores(ease, problem, l2=5), x @ weights, atol=1e-5)


def test_ease_refuses_a_catalogue_whose_inverse_does_not_fit(problem: Problem) -> None:
    with pytest.raises(CannotRunError, match="dense inverse"):
        list(ease.solve(replace(problem, n_items=60_000), [{"l2": 1}], 0))


def test_gfcf_equals_its_dense_formula(problem: Problem) -> None:
    r = problem.matrix().toarray().astype(np.float64)
    by_user, by_item = r.sum(1, keepdims=True), r.sum(0)
    normal = r / np.sqrt(np.maximum(by_user, 1)) / np.sqrt(np.maximum(by_item, 1))
    v = np.linalg.svd(normal)[2][:4].T
    low = np.diag(by_item**-0.5) @ v @ v.T @ np.diag(by_item**0.5)
    expected = r @ (normal.T @ normal + 0.3 * low)
    np.testing.assert_allclose(scores(gfcf, problem, factors=4, ideal=0.3), expected, atol=1e-5)


def test_recent_popularity_counts_the_newest_share_alone(problem: Problem) -> None:
    newest = problem.item_rows[problem.timestamps >= np.quantile(problem.timestamps, 0.8)]
    expected = np.bincount(newest, minlength=12)
    assert scores(popularity, problem, newest_share=0.2)[7].tolist() == expected.tolist()


def test_recent_popularity_says_that_it_needs_times(problem: Problem) -> None:
    with pytest.raises(CannotRunError, match="no times"):
        list(popularity.solve(replace(problem, timestamps=np.zeros(5)), [{"newest_share": 0.2}], 0))

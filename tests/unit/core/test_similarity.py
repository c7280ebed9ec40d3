from __future__ import annotations

import doctest

import numpy as np

from core import similarity
from core.similarity import directions, shared_part


def test_directions_have_length_one_and_no_shared_part() -> None:
    vectors = np.random.default_rng(0).normal(3, 1, (50, 4))
    units = directions(vectors)
    assert np.allclose(np.linalg.norm(units, axis=1), 1, atol=1e-6)
    assert units.dtype == np.float32
    assert np.allclose(shared_part(vectors), vectors.mean(0))


def test_rows_of_zeros_stay_and_shift_nothing() -> None:
    vectors = np.random.default_rng(0).normal(3, 1, (50, 4))
    padded = np.concatenate([vectors, np.zeros((5, 4))])
    assert np.array_equal(directions(padded)[:50], directions(vectors))
    assert not directions(padded)[50:].any()
    assert not directions(np.zeros((3, 2))).any()


def test_one_known_row_has_no_direction() -> None:
    """It is its own mean: nothing tells it apart."""
    assert not directions(np.array([[1.0, 2.0], [0.0, 0.0]])).any()


def test_popular_items_are_not_near_to_everything() -> None:
    """Four clusters; what all share and what the clusters share both grow with popularity, as in recommenders."""
    rng = np.random.default_rng(1)
    cluster = np.repeat(np.arange(4), 50)
    popularity = np.log1p(rng.pareto(1.0, 200) + 1)[:, None]
    vectors = popularity * (2 * np.eye(8)[7] + np.eye(8)[cluster]) + 0.5 * rng.standard_normal((200, 8))
    plain = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def nearest(table: np.ndarray) -> np.ndarray:
        cosines = table @ table.T
        np.fill_diagonal(cosines, -2)
        return np.argsort(-cosines, axis=1)[:, :10]

    def found_by_popularity(rows: np.ndarray) -> float:
        return float(np.corrcoef(np.bincount(rows.ravel(), minlength=200), popularity[:, 0])[0, 1])

    assert found_by_popularity(nearest(plain)) > 0.6
    assert abs(found_by_popularity(nearest(directions(vectors)))) < 0.2
    assert (cluster[nearest(directions(vectors))] == cluster[:, None]).mean() > 0.6


def test_docstring_examples_hold() -> None:
    assert doctest.testmod(similarity).failed == 0

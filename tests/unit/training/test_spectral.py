"""Spectral recall: the suite, the decomposition against LAPACK's, the filter against its definition."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from core.histories import pad
from core.tensors import recall_step
from tests.suites.recall_data import block_dataset
from tests.suites.recall_suite import FIT, ClosedFormSuite, as_tensors
from training.models.spectral import fit_spectral
from training.models.truncated_svd import truncated_svd


class TestSpectral(ClosedFormSuite):
    fit = staticmethod(fit_spectral)
    spec = recall_step("spectral")
    settings = ("spectral.dimension=8",)
    expected_ndcg = 0.42
    expected_ndcg_without_times = 0.42


@pytest.fixture(scope="module")
def matrix() -> sparse.csr_matrix:
    """Rank 6 and a little noise, so that eight leading values stand apart from the rest."""
    rng = np.random.default_rng(0)
    left, right = (np.linalg.qr(rng.normal(size=(rows, 8)))[0] for rows in (90, 70))
    values = np.array([20, 15, 11, 8, 6, 4.5, 3.5, 2.5])
    return sparse.csr_matrix(((left * values) @ right.T + rng.normal(0, 1e-3, (90, 70))).astype(np.float32))


def test_decomposition_agrees_with_lapack(matrix: sparse.csr_matrix) -> None:
    found = truncated_svd(matrix, 5, np.random.default_rng(1))
    _, values, right = np.linalg.svd(matrix.toarray())
    np.testing.assert_allclose(found.values, values[:5], rtol=1e-4)
    np.testing.assert_allclose(np.abs(right[:5] @ found.vectors), np.eye(5), atol=2e-3)


def test_decomposition_is_orthonormal_with_positive_largest_entries(matrix: sparse.csr_matrix) -> None:
    vectors = truncated_svd(matrix, 5, np.random.default_rng(1)).vectors
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(5), atol=1e-4)
    assert (vectors[np.abs(vectors).argmax(axis=0), np.arange(5)] > 0).all()


def test_decomposition_ends_with_zeros_beyond_the_rank() -> None:
    ones = sparse.csr_matrix(np.ones((6, 4), np.float32))
    found = truncated_svd(ones, 7, np.random.default_rng(0))
    assert found.values[0] == pytest.approx(np.sqrt(24), rel=1e-5)
    assert (found.values[1:] == 0).all()
    assert (found.vectors[:, 1:] == 0).all()
    assert found.vectors.shape == (4, 7)


@pytest.mark.parametrize("response", [0.0, 1.0])
def test_scores_are_the_filter_of_the_normalised_matrix(response: float) -> None:
    dataset = block_dataset()
    model = TestSpectral.train(dataset, "spectral.dimension=200", f"spectral.response={response}")
    histories = dataset.histories(FIT)
    weights = model.weighting.of_histories(histories)
    matrix = sparse.csr_matrix((weights, histories.item_rows, histories.starts), shape=(160, dataset.n_items)).toarray()
    item_scale = np.sqrt(matrix.sum(0)) + (matrix.sum(0) == 0)
    _, values, right = np.linalg.svd(matrix / np.sqrt(matrix.sum(1, keepdims=True)) / item_scale, full_matrices=False)
    filtered = (right.T * np.where(values > 1e-5, values**response, 0)) @ right
    expected = (matrix / item_scale) @ filtered * item_scale
    rows, *others, _, features = as_tensors(pad(histories, dataset.n_items))
    found = (model.scores(rows, *others, features) - model.item_bias).numpy()[:, :-1]
    seen = matrix.sum(0) > 0
    np.testing.assert_allclose(found[:, seen], expected[:, seen], atol=2e-3)

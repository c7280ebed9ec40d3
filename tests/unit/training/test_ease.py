"""EASE: the suite, the closed form against its definition, and the refusal of large catalogues."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import sparse

from core.dataset import Dataset
from core.errors import SettingsError
from core.histories import Histories, pad
from core.tensors import recall_step
from tests.suites.recall_data import block_dataset
from tests.suites.recall_suite import ClosedFormSuite, as_tensors
from training.models import ease
from training.models.ease import fit_ease, item_weights
from training.models.recall import RecallModel


class TestEase(ClosedFormSuite):
    fit = staticmethod(fit_ease)
    spec = recall_step("ease")
    expected_ndcg = 0.42
    expected_ndcg_without_times = 0.42

    def test_other_seed_gives_other_weights(self, dataset: Dataset, model: RecallModel) -> None:
        """A closed form: only the small space for comparing items starts from the seed."""
        other = self.train(dataset, seed=1)
        assert torch.equal(other.item_vectors, model.item_vectors)
        assert not torch.equal(other.similarity_vectors, model.similarity_vectors)


@pytest.fixture(scope="module")
def matrix() -> sparse.csr_matrix:
    """Thirty users, twelve items, the last without users."""
    rng = np.random.default_rng(0)
    dense = rng.uniform(0.5, 2, (30, 12)) * (rng.random((30, 12)) < 0.4)
    dense[:, 11] = 0
    return sparse.csr_matrix(dense)


def test_weights_minimise_the_loss_under_a_zero_diagonal(matrix: sparse.csr_matrix) -> None:
    dense = matrix.toarray()
    gram = dense.T @ dense
    ridge = 0.3 * np.diag(gram)[:-1].mean()
    weights = item_weights(matrix, 0.3)
    gradient = gram @ weights - gram + ridge * weights  # zero but on the diagonal, where the constraint pulls
    np.fill_diagonal(gradient, 0)
    np.testing.assert_allclose(gradient, 0, atol=1e-9)
    assert (np.diag(weights) == 0).all()


def test_items_without_users_neither_speak_nor_are_spoken_for(matrix: sparse.csr_matrix) -> None:
    weights = item_weights(matrix, 0.3)
    assert (weights[11] == 0).all()
    assert (weights[:, 11] == 0).all()


def test_weights_do_not_depend_on_the_block_size(matrix: sparse.csr_matrix, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = item_weights(matrix, 0.3)
    monkeypatch.setattr(ease, "BLOCK_CELLS", 24)
    np.testing.assert_allclose(item_weights(matrix, 0.3), whole, atol=1e-12)


def test_scores_are_sums_of_the_historys_rows() -> None:
    model = TestEase.train(block_dataset())
    histories = Histories(
        np.array([0, 3]), np.array([4, 9, 70]), np.zeros(3), np.array([1, 0, -1], np.float32), np.zeros(3)
    )
    *history, _, features = as_tensors(pad(histories, model.n_items))
    weights = model.weighting.of_histories(histories) ** model.weight_power
    table = model.item_vectors.T.numpy()
    expected = weights @ table[[4, 9, 70]] + model.item_bias.numpy()
    np.testing.assert_allclose(model.scores(*history, features)[0].numpy(), expected, rtol=1e-5)


def test_large_catalogue_is_refused_with_its_size() -> None:
    with pytest.raises(SettingsError, match="123 items, a table of 0 MB"):
        TestEase.train(block_dataset(), "ease.max_items=122")

"""Matrix factorisation: the suite, the solvers against the exact solution, the fold-in."""

from __future__ import annotations

from dataclasses import replace

import numba
import numpy as np
import pytest
import torch

from core.dataset import Dataset
from core.histories import Histories, pad
from core.tensors import recall_step
from tests.suites.recall_data import block_dataset
from tests.suites.recall_suite import FIT, RecallSuite, as_tensors, ndcg
from training.models import mf_numba, mf_torch
from training.models.mf import fit_mf
from training.models.mf_model import MfRecall
from training.models.mf_problem import Interactions, Objective, exact_half_step, rotate_to_eigenbasis

OBJECTIVE = Objective(all_weight=0.1, regularisation=0.02, frequency_power=0.9)
ENOUGH_STEPS = 24


class TestMf(RecallSuite):
    fit = staticmethod(fit_mf)
    spec = recall_step("mf")
    settings = ("mf.dimension=8",)
    expected_ndcg = 0.42
    expected_ndcg_without_times = 0.42

    def test_torch_solver_reaches_the_same_quality(self) -> None:
        dataset = block_dataset()
        model = self.train(dataset, "mf.solver=torch")
        assert ndcg(dataset, model) >= self.expected_ndcg


@pytest.fixture(scope="module")
def problem() -> tuple[Interactions, Interactions]:
    """Ten users, the third without events, and a random number of items each."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 20, 10)
    lengths[2] = 0
    starts = np.concatenate([[0], np.cumsum(lengths)])
    items = np.concatenate([rng.permutation(24)[:length] for length in lengths])
    return Interactions.both_ways(starts, items, rng.uniform(0.2, 5, len(items)).astype(np.float32), 25)


def solve(solver: str, interactions: Interactions, fixed: np.ndarray, steps: int) -> np.ndarray:
    start = np.random.default_rng(1).normal(0, 0.1, (len(interactions), fixed.shape[1])).astype(np.float32)
    fixed, start, spectrum = rotate_to_eigenbasis(fixed, start, OBJECTIVE.all_weight)
    arguments = (interactions, fixed, start, spectrum, OBJECTIVE.ridge(interactions), steps)
    if solver == "numba":
        return mf_numba.half_step(*arguments)
    return mf_torch.half_step(*arguments, device=torch.device("cpu"))


@pytest.fixture(scope="module")
def factors() -> np.ndarray:
    return np.random.default_rng(2).normal(0, 0.5, (25, 6)).astype(np.float32)


@pytest.mark.parametrize("solver", ["numba", "torch"])
@pytest.mark.parametrize("direction", [0, 1])
def test_solver_agrees_with_dense_solve(solver: str, direction: int, problem: tuple, factors: np.ndarray) -> None:
    interactions = problem[direction]
    fixed, _, _ = rotate_to_eigenbasis(factors[: interactions.n_columns], factors[:1], OBJECTIVE.all_weight)
    expected = exact_half_step(interactions, fixed, OBJECTIVE)
    found = solve(solver, interactions, factors[: interactions.n_columns], ENOUGH_STEPS)
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-4)


def test_solvers_agree_after_three_steps(problem: tuple, factors: np.ndarray) -> None:
    one, two = (solve(solver, problem[0], factors, 3) for solver in ("numba", "torch"))
    np.testing.assert_allclose(one, two, rtol=1e-3, atol=1e-5)


def test_torch_solver_agrees_when_rows_are_split_into_blocks(
    problem: tuple, factors: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = solve("torch", problem[0], factors, 3)
    monkeypatch.setattr(mf_torch, "BLOCK_EVENTS", 13)
    np.testing.assert_allclose(solve("torch", problem[0], factors, 3), whole, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("solver", ["numba", "torch"])
def test_rows_without_events_become_zero(solver: str, problem: tuple, factors: np.ndarray) -> None:
    assert (solve(solver, problem[0], factors, 3)[2] == 0).all()


def test_compiled_solver_does_not_depend_on_threads(problem: tuple, factors: np.ndarray) -> None:
    threads = numba.get_num_threads()
    many = solve("numba", problem[0], factors, 3)
    numba.set_num_threads(1)
    try:
        np.testing.assert_array_equal(solve("numba", problem[0], factors, 3), many)
    finally:
        numba.set_num_threads(threads)


def test_rotation_makes_gram_diagonal_and_keeps_scores(factors: np.ndarray) -> None:
    users = np.random.default_rng(3).normal(size=(4, 6)).astype(np.float32)
    items, rotated, spectrum = rotate_to_eigenbasis(factors, users, 0.1)
    np.testing.assert_allclose(0.1 * items.T @ items, np.diag(spectrum), atol=1e-5)
    np.testing.assert_allclose(rotated @ items.T, users @ factors.T, atol=1e-5)


def test_loss_equals_its_definition(problem: tuple, factors: np.ndarray) -> None:
    interactions = problem[0]
    users = np.random.default_rng(4).normal(size=(10, 6)).astype(np.float32)
    scores = users.astype(np.float64) @ factors.T
    owners = np.repeat(np.arange(10), np.diff(interactions.starts))
    gaps = 1 - scores[owners, interactions.columns]
    expected = (interactions.weights @ gaps**2 + 0.1 * (scores**2).sum()) / interactions.weights.sum()
    assert mf_numba.loss(interactions, users, factors, 0.1) == pytest.approx(expected, rel=1e-5)


@pytest.fixture(scope="module")
def trained() -> MfRecall:
    dataset = block_dataset()
    model = TestMf.train(dataset)
    assert isinstance(model, MfRecall)
    return model


def uneven_dataset() -> Dataset:
    """Every other user keeps three events only."""
    dataset = block_dataset()
    events = dataset.events
    order = np.argsort(events.user_rows, kind="stable")
    place = np.empty(len(events), int)
    place[order] = np.arange(len(events)) % 24  # all have 24 events
    return replace(dataset, events=events.where((events.user_rows % 2 == 0) | (place < 3)))


@pytest.mark.parametrize("user_power", [0.0, 0.7])
def test_fold_in_solves_the_users_problem(user_power: float) -> None:
    dataset = uneven_dataset()
    trained = TestMf.train(dataset, f"mf.user_power={user_power}")
    histories = dataset.histories(FIT)
    factors = (np.maximum(histories.lengths, 1) / histories.lengths.mean()) ** -user_power
    weights = trained.weighting.of_histories(histories) * np.repeat(factors, histories.lengths).astype(np.float32)
    interactions, _ = Interactions.both_ways(histories.starts, histories.item_rows, weights, trained.n_items)
    objective = Objective(trained.all_items_mass / trained.n_items, trained.regularisation, trained.frequency_power)
    expected = exact_half_step(interactions, trained.item_vectors[:-1].numpy(), objective)
    found = trained.user_vectors(*as_tensors(pad(histories, trained.n_items))[:4]).numpy()
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_weights_have_mean_one_over_training_events(trained: MfRecall) -> None:
    assert trained.weighting.of_histories(block_dataset().histories(FIT)).mean() == pytest.approx(1, rel=1e-5)


def test_user_who_likes_an_item_more_moves_towards_it(trained: MfRecall) -> None:
    histories = Histories(
        np.array([0, 1, 2]), np.array([5, 5]), np.zeros(2), np.array([-1.0, 2.0], np.float32), np.zeros(2)
    )
    *history, _, features = as_tensors(pad(histories, trained.n_items))
    low, high = trained.scores(*history, features)[:, 5]
    assert high > low

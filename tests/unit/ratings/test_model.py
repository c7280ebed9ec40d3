"""The served graph: fold-in against a float64 oracle, padding, unknown users and items, storage."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from core.dataset import Dataset
from core.histories import pad
from training.ratings.fit import RatingFit
from training.ratings.model import RatingModel, inverse, solve


def inputs(world: Dataset, users: np.ndarray) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    padded = pad(world.histories(("train",)).select(users), world.n_items)
    codes = world.user_features.codes[users].astype(np.int64)
    items = np.tile(np.arange(world.n_items), (len(users), 1))
    arrays = (padded.rows, padded.values, codes, items)
    return tuple(torch.from_numpy(array) for array in arrays)  # type: ignore[return-value]


@given(st.integers(1, 12), st.integers(0, 2**31), st.floats(0, 4))
@hypothesis_settings(max_examples=40, deadline=None)
def test_inverse_is_that_of_float64(size: int, seed: int, spread: float) -> None:
    rng = np.random.default_rng(seed)
    factor = rng.standard_normal((3, size, 2 * size)) * 10 ** rng.uniform(-spread / 2, spread / 2, (3, size, 1))
    matrix = factor @ factor.transpose(0, 2, 1) + np.eye(size)
    found = inverse(torch.from_numpy(matrix.astype(np.float32))).double().numpy()
    scale = np.sqrt(np.einsum("nii->ni", matrix))
    exact = np.linalg.inv(matrix)
    error = np.abs(found - exact) * scale[:, :, None] * scale[:, None, :]
    normed = matrix / scale[:, :, None] / scale[:, None, :]
    assert error.max() <= 2e-5 * np.linalg.cond(normed).max() ** 2


def test_fold_in_solves_the_regression_that_it_stands_for(world: Dataset, fit: RatingFit) -> None:
    model, users = fit.model, np.array([3, 40, 99])
    rows, values, codes, _ = inputs(world, users)
    present = (rows != model.n_items).float()
    with torch.no_grad():
        prior = model._prior(rows, present, model._activity(present), codes).double().numpy()
        mean, covariance = model._user(rows, values, present, torch.from_numpy(prior).float())
    tables = {name: table.double().numpy() for name, table in model.tensors().items() if table.is_floating_point()}
    noise = model.facts.noise_precision
    for at in range(len(users)):
        own = rows[at][rows[at] != model.n_items].numpy()
        features = tables["item_features"][own]
        spread = tables["item_variance"][own].sum(0)
        spread[0] = 0
        precision = noise * (features.T @ features + np.diag(spread)) + np.diag(tables["user_precision"])
        residual = values[at, : len(own)].double().numpy() - model.facts.mean - tables["item_bias"][own]
        pull = noise * features.T @ residual + tables["user_precision"] * prior[at]
        np.testing.assert_allclose(mean[at].numpy(), np.linalg.solve(precision, pull), atol=1e-4)
        np.testing.assert_allclose(covariance[at].numpy(), np.linalg.inv(precision), atol=1e-4)


def test_padding_and_batch_mates_change_nothing(world: Dataset, fit: RatingFit) -> None:
    rows, values, codes, items = inputs(world, np.array([0, 7, 148]))
    wide = torch.nn.functional.pad(rows, (0, 16), value=world.n_items), torch.nn.functional.pad(values, (0, 16))
    with torch.no_grad():
        together = fit.model(*wide, codes, items)
        for at in range(3):
            alone = fit.model(rows[at : at + 1], values[at : at + 1], codes[at : at + 1], items[at : at + 1])
            for one, other in zip(alone, together, strict=True):
                torch.testing.assert_close(one[0], other[at], atol=2e-5, rtol=0)


def test_unknown_users_and_items_get_a_cautious_rating(world: Dataset, fit: RatingFit) -> None:
    rows = torch.full((1, 16), world.n_items)
    with torch.no_grad():
        items = torch.tensor([[0, world.n_items]])
        rating, probability = fit.model(rows, torch.zeros(1, 16), torch.zeros(1, 1, dtype=torch.int64), items)
    assert torch.isfinite(rating).all()
    assert torch.isfinite(probability).all()
    assert abs(float(rating[0, 1]) - fit.model.facts.value_mean) < 1


def test_a_click_without_a_value_is_not_a_bad_rating(world: Dataset, fit: RatingFit) -> None:
    rows, values, codes, items = inputs(world, np.array([5]))
    rows, values = torch.nn.functional.pad(rows, (0, 16), value=world.n_items), torch.nn.functional.pad(values, (0, 16))
    clicked = rows.clone(), values.clone()
    place = int((rows[0] != world.n_items).sum())
    clicked[0][0, place] = int(np.setdiff1d(np.arange(world.n_items), rows[0].numpy())[0])
    with torch.no_grad():
        before, after = fit.model(rows, values, codes, items)[0], fit.model(*clicked, codes, items)[0]
        clicked[1][0, place] = -2.0
        disliked = fit.model(*clicked, codes, items)[0]
    assert (after - before).abs().mean() < (disliked - before).abs().mean()


def test_stored_model_is_the_same(world: Dataset, fit: RatingFit) -> None:
    restored = RatingModel.from_tensors(fit.model.tensors(), fit.model.as_facts())
    arguments = inputs(world, np.arange(4))
    with torch.no_grad():
        for one, other in zip(fit.model(*arguments), restored(*arguments), strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("values", [[3.0, -2.0], [0.5, 0.5]])
def test_ratings_follow_the_history(world: Dataset, fit: RatingFit, values: list[float]) -> None:
    """Who loves the items of one half is expected to like the rest of that half better."""
    half = np.flatnonzero(world.item_features.codes[:, 0] == 1)
    rows = torch.full((2, 16), world.n_items)
    rows[:, :8] = torch.from_numpy(half[:8])
    given_values = torch.zeros(2, 16)
    given_values[0, :8], given_values[1, :8] = max(values), -max(values)
    with torch.no_grad():
        rating, _ = fit.model(
            rows, given_values, torch.zeros(2, 1, dtype=torch.int64), torch.from_numpy(np.stack([half[8:20]] * 2))
        )
    assert (rating[0] > rating[1]).all()


@given(st.integers(1, 12), st.integers(0, 2**31), st.floats(0, 4))
@hypothesis_settings(max_examples=40, deadline=None)
def test_solution_is_that_of_float64(size: int, seed: int, spread: float) -> None:
    rng = np.random.default_rng(seed)
    factor = rng.standard_normal((3, size, 2 * size)) * 10 ** rng.uniform(-spread / 2, spread / 2, (3, size, 1))
    matrix = factor @ factor.transpose(0, 2, 1) + np.eye(size)
    right = rng.standard_normal((3, size))
    found = solve(torch.from_numpy(matrix).float(), torch.from_numpy(right).float()).double().numpy()
    scale = np.sqrt(np.einsum("nii->ni", matrix))
    exact = np.linalg.solve(matrix, right[:, :, None])[:, :, 0]
    condition = np.linalg.cond(matrix / scale[:, :, None] / scale[:, None, :]).max()
    largest = np.abs(right / scale).max()
    assert (np.abs(found - exact) * scale).max() <= 2e-5 * condition**2 * max(largest, 1e-3)


def test_predicted_values_are_the_first_column_of_the_summary(world: Dataset, fit: RatingFit) -> None:
    rows, values, codes, items = inputs(world, np.array([3, 40, 99, 7]))
    rows[1], values[1] = fit.model.n_items, 0.0  # an unknown user
    with torch.no_grad():
        summary = fit.model.summary(rows, values, codes, items)
        predicted = fit.model.predicted(rows, values, codes, items)
    np.testing.assert_allclose(predicted.numpy(), summary[..., 0].numpy(), atol=1e-5)

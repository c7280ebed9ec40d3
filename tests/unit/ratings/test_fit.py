"""What the rating model learns, and that nothing leaks while it does."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from core.dataset import Dataset, histories_of
from core.errors import TrainingError
from core.rating_metrics import auc, calibration_curve, expected_calibration_error, rmse
from tests.unit.ratings.conftest import SMALL
from tests.unit.ratings.worlds import taste_world
from training.ratings.baselines import fit_baselines
from training.ratings.fit import RatingFit, _cross_fitted, fit_rating
from training.ratings.predict import predict_pairs
from training.ratings.scale import scale_of


@pytest.fixture(scope="module")
def predicted(world: Dataset, fit: RatingFit) -> tuple[np.ndarray, np.ndarray]:
    test = world.events.of_splits(("test",))
    return predict_pairs(fit.model, world, world.histories(("train",)), test.user_rows, test.item_rows)


def test_ratings_beat_biases_by_far(world: Dataset, predicted: tuple[np.ndarray, np.ndarray]) -> None:
    train, test = world.events.of_splits(("train",)), world.events.of_splits(("test",))
    biases = fit_baselines(train, world.n_users, world.n_items).predict(test.user_rows, test.item_rows)
    best = min(rmse(test.raw_values, value) for value in biases.values())
    assert best > 0.9
    assert rmse(test.raw_values, predicted[0]) < 0.6  # noise and rounding alone are about .43


def test_probabilities_order_and_are_calibrated(
    world: Dataset, fit: RatingFit, predicted: tuple[np.ndarray, np.ndarray]
) -> None:
    liked = world.events.of_splits(("test",)).raw_values >= fit.model.facts.like_at
    assert auc(liked, predicted[1]) > 0.93
    assert expected_calibration_error(calibration_curve(liked, predicted[1], bins=5)) < 0.06


def test_cross_fitted_figures_foretell_the_test_split(
    world: Dataset, fit: RatingFit, predicted: tuple[np.ndarray, np.ndarray]
) -> None:
    test = world.events.of_splits(("test",))
    assert fit.metrics["rmse"] == pytest.approx(rmse(test.raw_values, predicted[0]), abs=0.08)
    assert 0 < fit.cut < 1


def test_ratings_stay_within_the_scale(predicted: tuple[np.ndarray, np.ndarray]) -> None:
    assert predicted[0].min() >= 1
    assert predicted[0].max() <= 5
    assert ((predicted[1] > 0) & (predicted[1] < 1)).all()


def test_same_seed_gives_the_same_model(world: Dataset, fit: RatingFit) -> None:
    again = fit_rating(world, world.events.of_splits(("train",)), SMALL, seed=0)
    for name, tensor in fit.model.tensors().items():
        assert torch.equal(tensor, again.model.tensors()[name]), name


def test_held_values_never_reach_their_own_summaries(world: Dataset) -> None:
    events = world.events.of_splits(("train",))
    scale = scale_of(world, events, None)
    held = np.arange(len(events)) % 5 == 0
    other = dataclasses.replace(events, values=np.where(held, -events.values, events.values))
    summaries = [
        _cross_fitted(world, chosen, held, scale, SMALL, np.random.default_rng(0)) for chosen in (events, other)
    ]
    assert np.array_equal(*summaries)


def test_attributes_help_users_without_a_history(world: Dataset, fit: RatingFit) -> None:
    empty = histories_of(world.events.where(np.zeros(0, np.int64)), world.n_users)
    pairs = np.arange(40)
    first, second = (
        predict_pairs(fit.model, world, empty, np.full(40, user), pairs)[0] for user in (0, 1)
    )  # groups 1 and 2
    half = world.item_features.codes[:40, 0]
    assert first[half == 1].mean() > first[half == 2].mean() + 0.5
    assert second[half == 2].mean() > second[half == 1].mean() + 0.5


def test_likes_count_from_the_threshold_that_is_set(world: Dataset) -> None:
    settings = SMALL.model_copy(update={"like_at": 4.5, "folds": 2})
    fit = fit_rating(world, world.events.of_splits(("train",)), settings, seed=0)
    assert fit.model.facts.liked_share == pytest.approx(
        (world.events.of_splits(("train",)).raw_values >= 4.5).mean(), abs=1e-6
    )


@pytest.mark.parametrize("like_at", [0.5, 7.0])
def test_threshold_that_parts_nothing_is_refused(world: Dataset, like_at: float) -> None:
    with pytest.raises(TrainingError, match="parts nothing"):
        scale_of(world, world.events, like_at)


def test_data_without_values_is_refused() -> None:
    world = taste_world(n_users=20, n_items=20, per_user=5, with_values=False)
    with pytest.raises(TrainingError, match="no ratings"):
        fit_rating(world, world.events, SMALL, seed=0)


def test_events_without_a_value_tell_no_liking(world: Dataset) -> None:
    events = world.events.of_splits(("train",))
    silent = np.arange(len(events)) % 3 == 0
    mixed = dataclasses.replace(
        events,
        values=np.where(silent, np.float32(0), events.values),
        raw_values=np.where(silent, np.float32(np.nan), events.raw_values),
    )
    fit = fit_rating(world, mixed, SMALL, seed=0)
    assert fit.metrics["pairs"] == int((~silent).sum())
    test = world.events.of_splits(("test",))
    found, _ = predict_pairs(fit.model, world, histories_of(mixed, world.n_users), test.user_rows, test.item_rows)
    assert rmse(test.raw_values, found) < 0.7

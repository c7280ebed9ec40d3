"""One trained model for the tests of this folder."""

from __future__ import annotations

import pytest

from core.dataset import Dataset
from core.sections import RatingSettings
from tests.unit.ratings.worlds import taste_world
from training.ratings.fit import RatingFit, fit_rating

SMALL = RatingSettings(dimension=4, iterations=10, implicit_dimension=6, folds=3, epochs=10)


@pytest.fixture(scope="session")
def world() -> Dataset:
    return taste_world()


@pytest.fixture(scope="session")
def fit(world: Dataset) -> RatingFit:
    return fit_rating(world, world.events.of_splits(("train",)), SMALL, seed=0)

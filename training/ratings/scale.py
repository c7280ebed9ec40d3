"""The scale of the values: from raw to standardised, and from which value on an item is liked."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from core.dataset import Dataset, Events
from core.errors import TrainingError

ROUNDING = 1e-4
"""Slack of comparisons on the standardised scale, in deviations: values are float32."""


@dataclass(frozen=True)
class Scale:
    """Facts about the values.

    Attributes:
        value_mean: Raw mean of the train split.
        value_std: Raw deviation of the train split.
        lowest: Smallest raw value of the fit.
        highest: Largest one.
        like_at: Raw value from which on an item counts as liked.
        liked_share: Share of liked values in the fit.
    """

    value_mean: float
    value_std: float
    lowest: float
    highest: float
    like_at: float
    liked_share: float

    def is_liked(self, standardised: np.ndarray) -> np.ndarray:
        """Which standardised values are at or above ``like_at``, bool."""
        liked: np.ndarray = standardised >= (self.like_at - self.value_mean) / self.value_std - ROUNDING
        return liked

    def as_facts(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def scale_of(dataset: Dataset, events: Events, like_at: float | None) -> Scale:
    """The scale of a dataset.

    Args:
        dataset: Its train split gives mean and deviation, as in the dataset stage.
        events: The fitted events.
        like_at: Raw value; the mean of the fitted values when None.

    Raises:
        TrainingError: There are no values, or all are equal, or none or all of them are liked.
    """
    train = dataset.events.of_splits(("train",)).raw_values
    train = train[np.isfinite(train)].astype(np.float64)
    known = events.raw_values[np.isfinite(events.raw_values)].astype(np.float64)
    if len(train) == 0 or len(known) == 0 or train.std() == 0:
        raise TrainingError(
            "there are no ratings to learn from",
            where="column value of the events",
            expected="values that differ",
            found="no values" if len(train) == 0 or len(known) == 0 else f"{train[0]:g} throughout",
            next_step="give the events a value column, or leave out the rating model",
        )
    at = float(known.mean()) if like_at is None else like_at
    share = float((known >= at).mean())
    if not 0 < share < 1:
        raise TrainingError(
            "the threshold parts nothing",
            where="rating.like_at",
            expected=f"a value between {known.min():g} and {known.max():g}",
            found=f"{at:g}",
        )
    return Scale(float(train.mean()), float(train.std()), float(known.min()), float(known.max()), at, share)

"""Guards and schedule of the training loops."""

from __future__ import annotations

import math

import pytest

from core.errors import TrainingError
from training.loop import check_finite, cosine


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_value_that_is_not_finite_stops_the_run(value: float) -> None:
    with pytest.raises(TrainingError) as caught:
        check_finite(value, "mf", 7, "raise mf.regularisation")
    assert caught.value.where == "step 7"
    assert caught.value.next_step == "raise mf.regularisation"


def test_finite_value_passes_through() -> None:
    assert check_finite(1.5, "mf", 7, "") == 1.5


def test_cosine_falls_from_one_towards_zero() -> None:
    factors = [cosine(step, 10) for step in range(11)]
    assert factors[0] == 1
    assert factors[-1] == pytest.approx(0)
    assert factors == sorted(factors, reverse=True)

from __future__ import annotations

import numpy as np
import pytest

from core.bootstrap import paired_bootstrap, standard_error


def test_interval_covers_the_true_difference_about_95_times_in_100() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(200):
        gaps = rng.normal(0.3, 1.0, size=80)
        found = paired_bootstrap(gaps, np.zeros(80), rng, resamples=400)
        covered += found.low <= 0.3 <= found.high
    assert 180 <= covered <= 199


def test_equal_systems_differ_by_nothing() -> None:
    values = np.linspace(0, 1, 50)
    found = paired_bootstrap(values, values, np.random.default_rng(0))
    assert (found.mean, found.low, found.high) == (0.0, 0.0, 0.0)


def test_standard_error_matches_its_formula() -> None:
    assert standard_error(np.array([1.0, 2.0, 3.0])) == pytest.approx(1 / np.sqrt(3))


def test_standard_error_is_zero_when_one_user_is_left() -> None:
    assert standard_error(np.array([1.0])) == 0.0

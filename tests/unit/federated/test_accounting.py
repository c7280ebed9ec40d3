"""The privacy budget against values known from elsewhere."""

from __future__ import annotations

import math

import pytest

from training.federated.accounting import compose, delta_of, epsilon_of, mu_of


def test_delta_is_that_of_the_analytic_gaussian_mechanism() -> None:
    # Phi(-1/2) - e Phi(-3/2), from a table of the normal distribution
    assert delta_of(1.0, 1.0) == pytest.approx(0.308538 - math.e * 0.066807, abs=1e-5)


def test_delta_of_epsilon_zero_is_total_variation() -> None:
    assert delta_of(0.0, 2.0) == pytest.approx(2 * 0.8413447 - 1, abs=1e-6)


def test_noise_is_less_than_the_classical_bound_asks_for() -> None:
    epsilon, delta = 0.5, 1e-5
    assert 1 / mu_of(epsilon, delta) < math.sqrt(2 * math.log(1.25 / delta)) / epsilon


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 10.0, 300.0])
def test_epsilon_and_mu_are_inverses(epsilon: float) -> None:
    assert epsilon_of(mu_of(epsilon, 1e-5), 1e-5) == pytest.approx(epsilon, rel=1e-6)


def test_releases_compose_like_one_with_less_noise() -> None:
    assert compose([0.3] * 9) == pytest.approx(0.9)

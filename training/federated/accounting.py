"""The privacy budget of Gaussian noise: exact, by the analytic Gaussian mechanism.

A sum with sensitivity ``C`` and noise of standard deviation ``C / mu`` is mu-GDP. Several releases compose to the
root of the sum of squares of their mus (Dong, Roth, Su 2022, "Gaussian Differential Privacy"), and the delta of an
epsilon is that of one Gaussian mechanism (Balle, Wang 2018, theorem 8).
"""

from __future__ import annotations

import math


def delta_of(epsilon: float, mu: float) -> float:
    """Smallest delta for which a mu-GDP release is (epsilon, delta)-private."""
    if mu == 0:
        return 0.0
    tail = _normal(-epsilon / mu - mu / 2)
    return _normal(-epsilon / mu + mu / 2) - (math.exp(epsilon + math.log(tail)) if tail > 0 else 0.0)


def mu_of(epsilon: float, delta: float) -> float:
    """Largest mu that is (epsilon, delta)-private; both positive, delta below 1."""
    low, high = 0.0, 1.0
    while delta_of(epsilon, high) < delta:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if delta_of(epsilon, middle) <= delta else (low, middle)
    return low


def epsilon_of(mu: float, delta: float) -> float:
    """Smallest epsilon for which a mu-GDP release is (epsilon, delta)-private."""
    low, high = 0.0, 1.0
    while delta_of(high, mu) > delta:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (low, middle) if delta_of(middle, mu) <= delta else (middle, high)
    return high


def compose(mus: list[float]) -> float:
    """The mu of several releases of the same people together."""
    return math.sqrt(sum(mu * mu for mu in mus))


def _normal(at: float) -> float:
    return math.erfc(-at / math.sqrt(2)) / 2

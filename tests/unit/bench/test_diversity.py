from __future__ import annotations

import pytest

from bench.diversity import choose


def curve(*values: float) -> list[dict[str, float]]:
    return [{"diversity": at / 10, "ndcg@10": value} for at, value in enumerate(values)]


@pytest.mark.parametrize(
    ("values", "chosen"),
    [
        ((0.5, 0.495, 0.491, 0.48), 0.2),
        ((0.5, 0.48, 0.5), 0.0),
        ((0.5, 0.52, 0.51), 0.2),
        ((0.5,), 0.0),
    ],
)
def test_the_largest_strength_before_the_first_that_costs_too_much_is_chosen(
    values: tuple[float, ...], chosen: float
) -> None:
    assert choose(curve(*values)) == chosen

"""Exploration: replayable bit for bit, and propensities that are the probabilities they claim to be."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.feedback import Candidate, Exploration, Impression, Place, canonical, parse_impression
from serving.gateway.explore import NOTHING, draw_slate, policy_for, propensities, replay

SCORES = [2.0, 1.7, 1.1, 0.4, 0.1, -0.6]


def impression(request_id: str, scores: list[float], k: int, policy: Exploration) -> Impression:
    drawn = draw_slate(scores, k, policy)
    chances = propensities(scores, drawn.places, policy)
    places = [
        Place(position=at, item=f"i{place}", score=scores[place], propensity=chance, source="recall")
        for at, (place, chance) in enumerate(zip(drawn.places, chances.tolist(), strict=True), 1)
    ]
    return Impression(
        request_id=request_id, user_ref="u1_" + "0" * 32, event_time_ms=1, release="r1", ensemble="recommend",
        slate=tuple(places), exploration=policy, latency_ms=1.0,
        candidates=tuple(Candidate(item=f"i{at}", score=score) for at, score in enumerate(scores)),
    )  # fmt: skip


@given(
    st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=20, unique=True),
    st.integers(1, 12),
    st.floats(0, 3),
    st.floats(0, 1),
    st.text("0123456789abcdef", min_size=1, max_size=20),
)
def test_slate_and_propensities_replay_bit_for_bit_from_the_stored_row(
    scores: list[float], k: int, temperature: float, epsilon: float, request_id: str
) -> None:
    scores = sorted(scores, reverse=True)
    shown = impression(request_id, scores, k, policy_for(request_id, scores, temperature, epsilon, 20))
    read = parse_impression(canonical(shown))
    assert isinstance(read, Impression)
    items, chances = replay(read)
    assert items == [place.item for place in shown.slate]
    assert chances == [place.propensity for place in shown.slate]
    assert len(set(items)) == len(items) == min(k, len(scores))


@pytest.mark.parametrize("epsilon", [0.0, 0.4])
def test_propensity_is_the_share_of_slates_with_that_item_at_that_place(epsilon: float) -> None:
    k, times = 4, 4_000
    policy = Exploration(method="plackett-luce", temperature=0.8, epsilon=epsilon, seed=5, draws=3_000)
    shown = np.zeros((k, len(SCORES)))
    for seed in range(times):
        drawn = draw_slate(SCORES, k, policy.model_copy(update={"seed": seed}))
        shown[np.arange(k), drawn.places] += 1 / times
    for slate in (np.array([0, 1, 2, 3]), np.array([5, 3, 0, 1])):
        found = propensities(SCORES, slate, policy)
        assert found == pytest.approx(shown[np.arange(k), slate], abs=0.035)


def test_upper_half_is_never_uniform() -> None:
    policy = Exploration(method="plackett-luce", temperature=0.0, epsilon=1.0, seed=1, draws=10)
    for seed in range(50):
        drawn = draw_slate(SCORES, 4, policy.model_copy(update={"seed": seed}))
        assert drawn.places[:2].tolist() == [0, 1]
        assert drawn.uniform.tolist() == [False, False, True, True]


def test_no_temperature_and_no_epsilon_is_the_order_itself() -> None:
    policy = policy_for("r", SCORES, 0.0, 0.0, 100)
    assert policy == NOTHING
    assert draw_slate(SCORES, 3, policy).places.tolist() == [0, 1, 2]
    assert propensities(SCORES, np.arange(3), policy).tolist() == [1, 1, 1]

"""Event weights: numpy and torch agree, each factor does what it says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from core.histories import SECONDS_PER_DAY, Histories, pad
from core.sections import MfSettings
from training.models.event_weights import EventWeighting

WEIGHTING = EventWeighting.from_settings(MfSettings())


def histories_with(days: list[list[float]], values: list[list[float]]) -> Histories:
    """Users whose events lie at ``days``, newest first."""
    starts = np.concatenate([[0], np.cumsum([len(user) for user in days])])
    flat = np.array([day for user in days for day in user])
    return Histories(
        starts.astype(np.int64),
        np.arange(len(flat), dtype=np.int32),
        flat * SECONDS_PER_DAY,
        np.array([value for user in values for value in user], dtype=np.float32),
        np.zeros(len(flat), np.uint8),
    )


@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 4000), st.floats(-3, 3, width=32)), min_size=0, max_size=20),
        min_size=1,
        max_size=5,
    ),
    st.sampled_from([0.0, 30.0]),
)
def test_training_and_serving_weights_agree(users: list[list[tuple[int, float]]], decay: float) -> None:
    weighting = EventWeighting(0.45, 0.1, decay, 7.0, 10.0, 0.3)
    users = [sorted(user, reverse=True) for user in users]
    histories = histories_with([[d for d, _ in user] for user in users], [[v for _, v in user] for user in users])
    padded = pad(histories, len(histories.item_rows))
    served = weighting.of_tensors(
        *(torch.from_numpy(part) for part in (padded.ages, padded.values, padded.kinds))
    ).numpy()
    np.testing.assert_allclose(
        served[padded.rows != len(histories.item_rows)], weighting.of_histories(histories), rtol=1e-4
    )


def test_events_after_return_weigh_more() -> None:
    weighting = EventWeighting(0.0, 0.1, 0.0, 7.0, 10.0)
    np.testing.assert_allclose(weighting.of_histories(histories_with([[20, 8, 7, 0]], [[0, 0, 0, 0]])), [10, 10, 1, 1])


def test_event_counts_half_at_decay_age() -> None:
    weighting = EventWeighting(0.0, 0.1, 30.0, 1e9, 1.0)
    np.testing.assert_allclose(weighting.of_histories(histories_with([[30, 0]], [[0, 0]])), [1, 0.5])


def test_low_values_keep_a_positive_weight() -> None:
    weighting = EventWeighting(1.0, 0.1, 0.0, 7.0, 1.0)
    np.testing.assert_allclose(weighting.of_histories(histories_with([[0, 0]], [[-5, 1]])), [0.1, 2])


def test_data_without_times_and_values_weighs_all_events_alike() -> None:
    histories = histories_with([[0, 0, 0], [], [0]], [[0, 0, 0], [], [0]])
    np.testing.assert_allclose(WEIGHTING.scaled_to(histories).of_histories(histories), 1, rtol=1e-6)


def test_scaled_weights_have_mean_one() -> None:
    histories = histories_with([[40, 3, 0], [9, 0]], [[1, -1, 0], [2, 0]])
    assert WEIGHTING.scaled_to(histories).of_histories(histories).mean() == pytest.approx(1, rel=1e-5)


def test_facts_restore_the_weighting() -> None:
    assert EventWeighting.from_facts(WEIGHTING.as_facts()) == WEIGHTING

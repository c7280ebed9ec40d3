"""The item bias: popularity order without ties, unseen items last."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from core.dataset import Events
from core.histories import SECONDS_PER_DAY
from core.tensors import MASKED
from training.models.recall_base import UNSEEN, popularity_bias, recent_popularity, without_ties


@given(st.lists(st.sampled_from([-3.5, -1e-30, 0.0, 1e-40, 0.5, 2.0, 1e10]), max_size=50))
def test_values_without_ties_order_by_value_then_row(values: list[float]) -> None:
    array = np.array(values, dtype=np.float32)
    found = without_ties(array)
    expected = np.lexsort((np.arange(len(array)), -array))
    np.testing.assert_array_equal(np.argsort(-found, kind="stable"), expected)
    assert len(np.unique(found)) == len(found)


def test_values_without_ties_stay_where_they_are() -> None:
    values = np.array([1.0, -2.0, 0.25], dtype=np.float32)
    np.testing.assert_array_equal(without_ties(values), values)


def test_popularity_bias_orders_by_count_then_row_then_unseen() -> None:
    bias = popularity_bias(np.array([0, 4, 9, 4, 0]), 0.1)
    assert list(np.argsort(-bias)) == [2, 1, 3, 0, 4, 5]


def test_popularity_bias_is_strength_times_log() -> None:
    np.testing.assert_allclose(popularity_bias(np.array([1, 100]), 0.5)[:2], [0, 0.5 * np.log(100)], rtol=1e-6)


def test_unseen_items_lie_below_unseen_and_padding_is_masked() -> None:
    bias = popularity_bias(np.array([0, 1, 0]), 0.1)
    assert (bias[[0, 2]] <= UNSEEN).all()
    assert bias[-1] <= MASKED


def test_zero_strength_still_orders_empty_histories_by_popularity() -> None:
    assert list(np.argsort(-popularity_bias(np.array([1, 50, 7]), 0.0))[:3]) == [1, 2, 0]


def test_recent_popularity_halves_with_age() -> None:
    found = recent_popularity(events_at([0, 0, 1, 2], [0, 30, 60, 60]), 4, 30.0)
    np.testing.assert_allclose(found, [0.75, 1, 1, 0])


def test_recent_popularity_is_the_count_when_there_are_no_times() -> None:
    np.testing.assert_allclose(recent_popularity(events_at([0, 0, 2], [0, 0, 0]), 3, 30.0), [2, 0, 1])


def test_recent_popularity_of_ancient_items_stays_above_unseen_ones() -> None:
    found = recent_popularity(events_at([0, 1], [0, 1_000_000]), 3, 1.0)
    assert found[0] > 0
    assert found[2] == 0


def events_at(items: list[int], days: list[float]) -> Events:
    count = len(items)
    return Events(
        np.zeros(count, np.int32),
        np.array(items, np.int32),
        np.array(days) * SECONDS_PER_DAY,
        np.zeros(count, np.float32),
        np.zeros(count, np.float32),
        np.zeros(count, np.uint8),
        np.zeros(count, np.uint8),
    )

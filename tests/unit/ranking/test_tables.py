"""Item tables: statistics that mean what they say, content vectors whose cosines follow shared attributes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from core.dataset import Events
from core.features import FeatureColumn, FeatureTable
from tests.unit.ranking.worlds import DAY, block_dataset
from training.models.ranker_shape import STATISTICS
from training.ranking.tables import content_vectors, item_statistics, item_tables


def events_at(rows: list[tuple[int, int, float, float]]) -> Events:
    """(user, item, day, standardised value) in time order."""
    users, items, days, values = zip(*rows, strict=True)
    return Events(
        np.array(users, np.int32),
        np.array(items, np.int32),
        np.array(days) * DAY,
        np.array(values, np.float32),
        np.array(values, np.float32),
        np.zeros(len(rows), np.uint8),
        np.zeros(len(rows), np.uint8),
    )


def column(statistics: np.ndarray, name: str) -> np.ndarray:
    found: np.ndarray = statistics[:, STATISTICS.index(name)]
    return found


def test_popularity_orders_items_by_events() -> None:
    events = events_at([(user, item, user, 0.0) for user in range(9) for item in range(1 + user // 3)])
    assert np.argsort(-column(item_statistics(events, 4, has_times=True), "popularity")).tolist() == [0, 1, 2, 3]


def test_trend_is_highest_for_an_item_of_the_newest_events() -> None:
    events = events_at([(user, 0, user, 0.0) for user in range(18)] + [(user, 1, 30 + user, 0.0) for user in (0, 1)])
    statistics = item_statistics(events, 2, has_times=True)
    assert column(statistics, "trend")[1] > column(statistics, "trend")[0]
    assert column(statistics, "recent_popularity")[1] > column(statistics, "recent_popularity")[0]
    assert column(statistics, "age")[1] < column(statistics, "age")[0]


def test_returning_popularity_ignores_the_first_week_of_a_user() -> None:
    events = events_at([(0, 0, 0, 0.0), (1, 0, 0, 0.0), (0, 1, 1, 0.0), (0, 2, 8, 0.0)])
    returning = column(item_statistics(events, 3, has_times=True), "returning_popularity")
    assert returning[2] > returning[0] == returning[1]


def test_mean_value_is_shrunk_towards_zero_for_few_events() -> None:
    events = events_at([(0, 0, 0, 2.0)] + [(user, 1, 1, 2.0) for user in range(90)])
    mean = column(item_statistics(events, 3, has_times=True), "mean_value")
    assert mean[0] == pytest.approx(2 / 11, rel=1e-5)
    assert mean[1] == pytest.approx(180 / 100, rel=1e-5)
    assert mean[2] == 0


def test_statistics_of_time_are_zero_without_times() -> None:
    dataset = block_dataset(with_times=False)
    statistics = item_statistics(dataset.events, dataset.n_items, has_times=False)
    for name in ("recent_popularity", "returning_popularity", "trend", "age"):
        assert not column(statistics, name).any()
    assert column(statistics, "popularity").std() == pytest.approx(1, rel=1e-4)


@pytest.mark.parametrize("dimension", [2, 16])
def test_content_vectors_are_closer_for_shared_tags(dimension: int) -> None:
    codes = np.array([[1, 2], [1, 2], [3, 0], [3, 0], [0, 0], [1, 2]] * 5, np.int32)
    vectors = content_vectors(FeatureTable((FeatureColumn("tags", "tags", 4, 2),), codes), dimension)
    cosines = vectors @ vectors.T
    assert cosines[0, 1] == pytest.approx(1, abs=1e-4)
    assert cosines[0, 2] < 0.2
    assert cosines[4, 4] == 0  # nothing is known of it


def test_content_vectors_repeat_exactly() -> None:
    features = block_dataset().item_features
    assert np.array_equal(content_vectors(features, 2), content_vectors(features, 2))


def test_tables_without_attributes_keep_one_unknown_slot() -> None:
    dataset = block_dataset(with_attributes=False)
    tables = item_tables(dataset, dataset.events, torch.ones(dataset.n_items + 1, 4), 16)
    assert tables.codes.shape == (dataset.n_items + 1, 1)
    assert int(tables.codes.sum()) == 0
    assert tables.keys.shape == (dataset.n_items + 1, 4 + 1)


def test_tables_have_a_zero_padding_row() -> None:
    dataset = block_dataset()
    vectors = torch.ones(dataset.n_items + 1, 4)
    vectors[-1] = 0
    tables = item_tables(dataset, dataset.events, vectors, 16)
    for table in (tables.keys, tables.statistics, tables.codes):
        assert len(table) == dataset.n_items + 1
        assert float(table[-1].abs().sum()) == 0.0
        assert bool(torch.isfinite(table.float()).all())

"""Metrics against a slow, obvious oracle that walks each list with plain Python."""

from __future__ import annotations

import doctest
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import core.metrics as metrics
from core.metrics import Truth, accuracy_metrics, coverage, gini, hits, intra_list_diversity, truth_of

N_ITEMS = 12


def oracle(ranked: list[int], truth: set[int], k: int) -> dict[str, float]:
    found = [item in truth for item in ranked[:k]]
    ideal = sum(1 / math.log2(n + 2) for n in range(min(len(truth), k)))
    p, r = sum(found) / k, sum(found) / len(truth)
    return {
        "recall": r,
        "precision": p,
        "f1": 2 * p * r / (p + r) if p + r else 0.0,
        "ndcg": sum(1 / math.log2(n + 2) for n, hit in enumerate(found) if hit) / ideal,
        "hit": float(any(found)),
        "mrr": next((1 / (n + 1) for n, hit in enumerate(found) if hit), 0.0),
        "map": sum(sum(found[: n + 1]) / (n + 1) for n, hit in enumerate(found) if hit) / min(len(truth), k),
    }


users = st.lists(
    st.tuples(
        st.lists(st.integers(0, N_ITEMS - 1), unique=True, max_size=6),
        st.sets(st.integers(0, N_ITEMS - 1), min_size=1, max_size=8),
    ),
    min_size=1,
    max_size=6,
)


@given(users, st.integers(1, 8))
def test_accuracy_metrics_equal_the_oracle(data: list[tuple[list[int], set[int]]], k: int) -> None:
    lists = np.full((len(data), 6), -1)
    for row, (ranked, _) in enumerate(data):
        lists[row, : len(ranked)] = ranked
    owners = np.concatenate([[u] * len(t) for u, (_, t) in enumerate(data)]).astype(int)
    truth = truth_of(owners, np.concatenate([sorted(t) for _, t in data]), len(data))
    values = accuracy_metrics(hits(lists, truth), truth.sizes, (k,))
    for row, (ranked, wanted) in enumerate(data):
        for name, expected in oracle(ranked, wanted, k).items():
            assert values[f"{name}@{k}"][row] == pytest.approx(expected), name


def test_hits_are_empty_when_nothing_is_true() -> None:
    nothing = Truth(np.zeros(3, dtype=np.int64), np.zeros(0, dtype=np.int64))
    assert not hits(np.array([[0, 1], [2, -1]]), nothing).any()


def test_recall_is_nan_when_truth_is_empty() -> None:
    assert np.isnan(metrics.recall(np.zeros((1, 3), dtype=bool), np.array([0]), 3)).all()


def test_gini_is_high_when_one_item_takes_all() -> None:
    assert gini(np.zeros((50, 1), dtype=int), 10) == pytest.approx(0.9)


def test_coverage_ignores_missing_places() -> None:
    assert coverage(np.array([[-1, -1], [0, -1]]), 10) == pytest.approx(0.1)


def test_diversity_is_zero_for_twins_and_one_for_strangers() -> None:
    codes = np.array([[1, 2], [1, 2], [3, 4]])
    assert intra_list_diversity(np.array([[0, 1]]), codes) == pytest.approx(0.0)
    assert intra_list_diversity(np.array([[0, 2]]), codes) == pytest.approx(1.0)


def test_docstring_examples_hold() -> None:
    assert doctest.testmod(metrics).failed == 0

"""The item graph and the spectral tables on data small enough to work out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from core.histories import Histories
from training.models import item_graph
from training.models.item_graph import nearest_items, normalised_adjacency, spectral_tables
from training.models.sparse_sum import SparseSum


def histories(*users: list[int]) -> Histories:
    rows = np.array([item for user in users for item in user], dtype=np.int32)
    starts = np.concatenate([[0], np.cumsum([len(user) for user in users])]).astype(np.int64)
    return Histories(starts, rows, np.zeros(len(rows)), np.zeros(len(rows), np.float32), np.zeros(len(rows)))


CHECKERBOARD = histories([0, 2, 4], [1, 3], [0, 2], [1, 3, 5], [], [0, 4], [1, 5])
"""Even items go together, odd items go together; item 6 stands alone."""


def test_adjacency_is_normalised_by_both_degrees() -> None:
    found = normalised_adjacency(CHECKERBOARD, 7)[0, 2]
    assert found == pytest.approx(1 / np.sqrt(3 * 2))


def test_nearest_items_are_those_of_the_same_colour() -> None:
    graph = nearest_items(normalised_adjacency(CHECKERBOARD, 7), 5)
    assert (graph.sources % 2 == graph.targets % 2).all()
    assert not (graph.sources == graph.targets).any()
    assert 6 not in graph.targets
    assert set(graph.targets) == {0, 1, 2, 3, 4, 5}


def test_nearest_items_keep_the_heaviest() -> None:
    adjacency = normalised_adjacency(CHECKERBOARD, 7)
    dense = (adjacency.T @ adjacency).toarray()
    np.fill_diagonal(dense, 0)
    graph = nearest_items(adjacency, 1)
    np.testing.assert_allclose(np.exp(graph.log_weights), dense.max(1)[graph.targets], rtol=1e-5)


def test_nearest_items_do_not_depend_on_the_block_size(monkeypatch: pytest.MonkeyPatch) -> None:
    adjacency = normalised_adjacency(CHECKERBOARD, 7)
    whole = nearest_items(adjacency, 3)
    monkeypatch.setattr(item_graph, "BLOCK_CELLS", 14)
    parts = nearest_items(adjacency, 3)
    assert {*zip(whole.sources, whole.targets, strict=True)} == {*zip(parts.sources, parts.targets, strict=True)}


def test_no_neighbours_gives_no_edges() -> None:
    assert len(nearest_items(normalised_adjacency(CHECKERBOARD, 7), 0)) == 0


def test_spectral_tables_are_the_ideal_low_pass_filter() -> None:
    adjacency, counts = normalised_adjacency(CHECKERBOARD, 7), np.bincount(CHECKERBOARD.item_rows, minlength=7)
    tables = spectral_tables(adjacency, counts, 2, np.random.default_rng(0))
    vectors = np.linalg.svd(adjacency.toarray())[2][:2]
    roots = np.sqrt(np.maximum(counts, 1))
    expected = (vectors / roots).T @ (vectors * roots)
    found = tables.history @ tables.target.T
    np.testing.assert_allclose(found / np.abs(found).max(), expected / np.abs(expected).max(), atol=1e-5)
    assert np.sqrt(np.square(tables.history[counts > 0]).mean()) == pytest.approx(1, rel=1e-5)


def test_spectral_tables_are_zero_beyond_the_rank_and_for_unseen_items() -> None:
    adjacency, counts = normalised_adjacency(CHECKERBOARD, 7), np.bincount(CHECKERBOARD.item_rows, minlength=7)
    tables = spectral_tables(adjacency, counts, 12, np.random.default_rng(0))
    assert tables.target.shape == (7, 12)
    assert (tables.target[6] == 0).all()
    assert (tables.target[:, 6:] == 0).all()


def test_sparse_sum_has_the_right_gradient() -> None:
    edges = torch.tensor([[1, 2, 0, 2, 3], [0, 0, 1, 3, 3]])
    graph = SparseSum(edges, 4)
    weights = torch.tensor([0.5, 1.5, -1.0, 2.0, 0.3], dtype=torch.float64, requires_grad=True)
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        graph(weights, x), torch.zeros(4, 3, dtype=torch.float64).index_add(0, edges[1], weights[:, None] * x[edges[0]])
    )
    assert torch.autograd.gradcheck(graph, (weights, x))

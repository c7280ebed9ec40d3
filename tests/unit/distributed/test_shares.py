"""Batches and tables dealt to workers: nothing twice, nothing lost, and sums that are those of the whole."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from core.dataset import Dataset
from core.sections import GatSettings
from tests.suites.recall_data import block_dataset
from tests.suites.recall_suite import FIT
from training.distributed.group import Group
from training.distributed.updates import shares_of
from training.models.gat import batch_loss
from training.models.gat_examples import ExampleBatch, ExampleSource
from training.models.gat_network import GatNetwork, TensorBatch, start_network
from training.models.mf_problem import Interactions, dealt_rows

SETTINGS = GatSettings(dimension=8, batch_users=32)


def worker(rank: int, count: int) -> Group:
    group = Group()
    group.rank, group.count = rank, count
    return group


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return block_dataset()


@pytest.fixture(scope="module")
def network(dataset: Dataset) -> GatNetwork:
    counts = np.bincount(dataset.events.of_splits(FIT).item_rows, minlength=dataset.n_items)
    return start_network(dataset.histories(FIT), counts, SETTINGS, seed=0)


@pytest.fixture(scope="module")
def batch(dataset: Dataset) -> ExampleBatch:
    rng = np.random.default_rng(0)
    source = ExampleSource(dataset.histories(FIT), SETTINGS, has_times=True)
    return next(source.batches(source.draw(rng), rng))


@given(size=st.integers(1, 40), workers=st.integers(1, 5), accumulate=st.integers(1, 4))
def test_every_example_is_dealt_once(size: int, workers: int, accumulate: int) -> None:
    dealt = [part for rank in range(workers) for part in shares_of(size, worker(rank, workers), accumulate)]
    assert len(dealt) == workers * accumulate
    assert sorted(np.concatenate(dealt)) == list(range(size))
    assert max(map(len, dealt)) - min(map(len, dealt)) <= 1


@pytest.mark.parametrize("workers", [2, 3, 50])
def test_losses_of_shares_add_up_to_the_loss_of_the_batch(
    workers: int, batch: ExampleBatch, network: GatNetwork
) -> None:
    log_q = torch.zeros(len(network.item_bias))
    whole = TensorBatch.of(batch, "cpu")
    total = whole.weights.sum()
    parts = [batch.select(shares_of(len(batch.weights), worker(rank, workers), 1)[0]) for rank in range(workers)]
    with torch.no_grad():
        losses = [batch_loss(network, TensorBatch.of(part, "cpu"), None, log_q, total) for part in parts]
        expected = batch_loss(network, whole, None, log_q)
    torch.testing.assert_close(sum(losses), expected)


@given(lengths=st.lists(st.integers(0, 9), min_size=1, max_size=30), workers=st.integers(1, 4))
def test_rows_are_dealt_once_with_their_interactions(lengths: list[int], workers: int) -> None:
    starts = np.concatenate([[0], np.cumsum(lengths)])
    columns = np.concatenate([np.arange(length) for length in lengths]).astype(np.int32)
    whole, _ = Interactions.both_ways(starts, columns, np.ones(len(columns), np.float32), 9)
    dealt = dealt_rows(whole.starts, workers)
    assert sorted(np.concatenate(dealt)) == list(range(len(lengths)))
    for rows in dealt:
        part = whole.part(rows)
        assert len(part) == len(rows)
        np.testing.assert_array_equal(part.mass, whole.mass[rows])
        for place, row in enumerate(rows):
            own = part.columns[part.starts[place] : part.starts[place + 1]]
            np.testing.assert_array_equal(own, whole.columns[whole.starts[row] : whole.starts[row + 1]])


def test_rows_of_workers_have_about_as_many_events() -> None:
    lengths = np.random.default_rng(0).pareto(1.0, 5_000).astype(np.int64).clip(max=400)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    events = [lengths[rows].sum() for rows in dealt_rows(starts, 4)]
    assert max(events) - min(events) <= lengths.max()

"""Graph attention: the suite, the served attention against PyG's, learning itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from core.dataset import Dataset
from core.errors import TrainingError
from core.histories import pad
from core.sections import GatSettings
from core.tensors import recall_step
from tests.suites.recall_data import block_dataset
from tests.suites.recall_suite import FIT, RecallSuite, as_tensors, empty_requests, ndcg, popularity_ndcg
from training.models.gat import batch_loss, fit_gat
from training.models.gat_examples import Cuts, ExampleSource
from training.models.gat_model import GatRecall
from training.models.gat_network import GatNetwork, TensorBatch, served_form, start_network

SETTINGS = GatSettings(dimension=8, batch_users=32)


class TestGat(RecallSuite):
    fit = staticmethod(fit_gat)
    spec = recall_step("gat")
    settings = ("gat.dimension=8", "gat.batch_users=32")
    expected_ndcg = 0.42
    expected_ndcg_without_times = 0.42

    def test_sampled_softmax_beats_popularity_by_far(self, dataset: Dataset) -> None:
        model = self.train(dataset, "gat.full_softmax_items=1", "gat.samples=64")
        assert ndcg(dataset, model) > 1.5 * popularity_ndcg(dataset)

    def test_fewer_users_per_epoch_still_learn(self, dataset: Dataset) -> None:
        model = self.train(dataset, "gat.max_users_per_epoch=40")
        assert ndcg(dataset, model) > 1.5 * popularity_ndcg(dataset)

    def test_items_without_neighbours_can_be_trained(self, dataset: Dataset) -> None:
        assert ndcg(dataset, self.train(dataset, "gat.neighbours=0")) > 1.5 * popularity_ndcg(dataset)

    def test_absurd_learning_rate_stops_with_advice(self, dataset: Dataset) -> None:
        with pytest.raises(TrainingError, match=r"gat diverged[\s\S]*step \d+[\s\S]*gat\.table_rate"):
            self.train(dataset, "gat.table_rate=1e30", "gat.scalar_rate=1e30")


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return block_dataset()


def started(dataset: Dataset, heads: int = 1) -> GatNetwork:
    """The network before training."""
    counts = np.bincount(dataset.events.of_splits(FIT).item_rows, minlength=dataset.n_items)
    return start_network(dataset.histories(FIT), counts, SETTINGS.model_copy(update={"heads": heads}), seed=0)


@pytest.fixture(params=[1, 2, 4], ids=lambda heads: f"{heads} heads")
def network(dataset: Dataset, request: pytest.FixtureRequest) -> GatNetwork:
    """A network whose every scalar is away from its start."""
    network = started(dataset, request.param)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in (*network.scalars.parameters(), *network.items.parameters(), network.length_scale):
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    return network


def whole_histories(dataset: Dataset) -> TensorBatch:
    """All users with everything they did in train, nothing dropped; the second user's history is empty."""
    histories = dataset.histories(FIT)
    source = ExampleSource(histories, SETTINGS.model_copy(update={"drop": 0.0}), dataset.has_times)
    cuts = histories.lengths.copy()
    cuts[1] = 0
    everyone = Cuts(np.arange(dataset.n_users), cuts, np.ones(dataset.n_users, np.float32))
    return TensorBatch.of(source.batch(everyone, np.random.default_rng(0)), "cpu")


def test_served_attention_equals_message_passing(dataset: Dataset, network: GatNetwork) -> None:
    model = served_form([network], np.ones(dataset.n_items), 20)
    padded = as_tensors(pad(dataset.histories(FIT), dataset.n_items))[:4]
    empty = empty_requests(dataset, 1)[0]
    padded[0][1], padded[1][1], padded[2][1], padded[3][1] = empty[0, 0], 0, 0, 0
    with torch.no_grad():
        expected = network.user_vectors(network.propagated()[0], whole_histories(dataset))
    torch.testing.assert_close(model.user_vectors(*padded), expected, rtol=1e-4, atol=1e-5)
    assert (expected[1] == 0).all()
    assert expected.abs().max() > 0.1


def test_attention_adds_up_to_one_and_spares_padding(dataset: Dataset, network: GatNetwork) -> None:
    model = served_form([network], np.ones(dataset.n_items), 20)
    rows, ages, values, kinds, *_ = as_tensors(pad(dataset.histories(FIT), dataset.n_items))
    weights = model.attention(rows, ages, values, kinds)
    torch.testing.assert_close(weights.sum(1), torch.ones(len(rows), weights.shape[2]))
    assert (weights[rows == dataset.n_items] == 0).all()


def test_attention_of_empty_history_is_zero(dataset: Dataset, network: GatNetwork) -> None:
    model = served_form([network], np.ones(dataset.n_items), 20)
    assert (model.attention(*empty_requests(dataset, 2)[:4]) == 0).all()


def test_sparse_products_equal_messages(network: GatNetwork) -> None:
    tables = torch.randn(network.history_table.shape[0], 8, generator=torch.Generator().manual_seed(1))
    network.items.refresh_similarity(tables)
    gradients = []
    results = []
    for fused in (True, False):
        x = tables.clone().requires_grad_()
        result = network.items(x, fused=fused)
        parameters = (network.items.temperature, network.items.sharpness, network.items.mix)
        gradients.append(torch.autograd.grad(result.square().sum(), (x, *parameters)))
        results.append(result)
    torch.testing.assert_close(*results)
    for one, two in zip(*gradients, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-4)


def test_temperature_moves_attention_towards_similar_items(network: GatNetwork) -> None:
    tables = torch.nn.functional.normalize(torch.randn(network.history_table.shape, generator=torch.Generator()), dim=1)
    network.items.refresh_similarity(tables)

    def closeness(temperature: float) -> torch.Tensor:
        with torch.no_grad():
            network.items.temperature.fill_(temperature)
            return (network.items(tables) * tables).sum(1).mean()

    assert closeness(5.0) > closeness(0.0) > closeness(-5.0)


def test_one_batch_can_be_learned_by_heart(dataset: Dataset) -> None:
    network = started(dataset)
    source = ExampleSource(dataset.histories(FIT), SETTINGS, dataset.has_times)
    rng = np.random.default_rng(0)
    batch = TensorBatch.of(next(source.batches(source.draw(rng), rng)), "cpu")
    optimizer = torch.optim.Adam(network.parameters(), lr=0.05)
    for _ in range(150):
        loss = batch_loss(network, batch, None, torch.zeros(dataset.n_items))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    counts = torch.bincount(batch.target_users, minlength=len(batch.weights))
    per_user = torch.log(counts.clamp(min=1).float()) * (counts > 0)
    best_possible = (per_user * batch.weights).sum() / batch.weights.sum()
    assert loss < best_possible + 0.15


def test_sampled_loss_comes_near_full_loss_when_samples_are_many(dataset: Dataset, network: GatNetwork) -> None:
    half = ExampleSource(dataset.histories(FIT), SETTINGS, dataset.has_times)
    cuts = Cuts(np.arange(dataset.n_users), np.full(dataset.n_users, 5), np.ones(dataset.n_users, np.float32))
    batch = TensorBatch.of(half.batch(cuts, np.random.default_rng(0)), "cpu")
    counts = np.bincount(dataset.events.item_rows, minlength=dataset.n_items) + 1.0
    q = counts / counts.sum()
    samples = torch.from_numpy(np.random.default_rng(0).choice(dataset.n_items, 60_000, p=q))
    log_q = torch.from_numpy(np.log(q).astype(np.float32))
    with torch.no_grad():
        full, sampled = (batch_loss(network, batch, chosen, log_q) for chosen in (None, samples))
    # the estimate counts the target itself once more: log(1 + p) instead of log(1), a little above the full loss
    assert full <= sampled + 0.02
    assert sampled == pytest.approx(float(full), abs=0.08)


def test_every_user_weighs_the_same_however_many_targets(dataset: Dataset, network: GatNetwork) -> None:
    source = ExampleSource(dataset.histories(FIT), SETTINGS.model_copy(update={"drop": 0.0}), dataset.has_times)
    nothing = torch.zeros(dataset.n_items)

    def loss(users: list[int], cuts: list[int]) -> float:
        given = Cuts(np.array(users), np.array(cuts), np.ones(len(users), np.float32))
        batch = TensorBatch.of(source.batch(given, np.random.default_rng(0)), "cpu")
        with torch.no_grad():
            return float(batch_loss(network, batch, None, nothing))

    assert loss([0, 3], [15, 4]) == pytest.approx((loss([0], [15]) + loss([3], [4])) / 2, rel=1e-5)


def test_start_network_scores_like_the_low_pass_filter(dataset: Dataset) -> None:
    network = started(dataset)
    model = served_form([network], np.ones(dataset.n_items), 20)
    assert isinstance(model, GatRecall)
    assert ndcg(dataset, model) > 1.5 * popularity_ndcg(dataset)

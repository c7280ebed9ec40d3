"""The network learns what the blend cannot say, and says so when it cannot learn."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from core.errors import TrainingError
from core.metrics import truth_of
from core.sections import RankerSettings
from tests.unit.ranking.worlds import random_inputs, random_ranker
from training.models.ranker import Ranker
from training.models.ranker_attention import view_history
from training.models.ranker_features import PREDICTED_VALUE, candidate_features
from training.models.ranker_merge import merge
from training.ranking.choosing import blend_shares, choose_blend, choose_network, choose_value_weight
from training.ranking.examples import Batch, Examples
from training.ranking.scoring import by_blend, by_member, listwise_loss, mean_auc, mean_loss, ndcg_of_users, scores_of
from training.ranking.training import train_network

SETTINGS = RankerSettings(epochs=30, learning_rate=0.01, weight_decay=0.0, dropout=0.0, batch_users=16)
HIDDEN_STATISTIC = 4
"""Item statistic that decides the labels; recall's scores are noise."""


def hidden_examples(ranker: Ranker, seed: int, users: int = 48, hits_per_user: int = 4) -> Examples:
    """The items with the highest hidden statistic come true; recall scores tell nothing."""
    inputs = random_inputs(users, 16, seed=seed)
    merged = merge(inputs[4::2], inputs[5::2])
    history = view_history(*inputs[:3], ranker.shape.n_items)
    signal = ranker.tables.statistics[merged.rows][..., HIDDEN_STATISTIC].masked_fill(~merged.valid, -1e9)
    labels = torch.zeros_like(signal).scatter_(1, signal.topk(hits_per_user, 1).indices, 1.0)
    batch = Batch(
        ranker.tables,
        history,
        inputs[3],
        merged.rows,
        merged.valid,
        merged.scores,
        merged.present,
        candidate_features(ranker.tables, merged, history, inputs[3]),
        labels,
    )
    owners, places = torch.nonzero(labels, as_tuple=True)
    truth = truth_of(owners.numpy(), merged.rows[owners, places].numpy(), users)
    return Examples((batch,), truth, np.arange(users))


def trained(seed: int = 0, epochs: int = 30) -> tuple[Ranker, Examples]:
    ranker = random_ranker(trained=False)
    examples = hidden_examples(ranker, seed=1)
    train_network(ranker, (examples,), SETTINGS, epochs=epochs, generator=torch.Generator().manual_seed(seed))
    return ranker, examples


@pytest.fixture(scope="module")
def fitted() -> tuple[Ranker, Examples]:
    return trained()


def test_network_overfits_one_batch(fitted: tuple[Ranker, Examples]) -> None:
    ranker, examples = fitted
    before = mean_loss(scores_of(by_blend(ranker.blend.tolist()), examples), examples)
    total = [
        blend + more
        for blend, more in zip(
            scores_of(by_blend(ranker.blend.tolist()), examples), scores_of(by_member(ranker), examples), strict=True
        )
    ]
    assert before > 3.0
    assert mean_loss(total, examples) < 1.7  # the floor is log 4: four hits share the softmax


def test_network_finds_a_signal_that_recall_lacks_for_other_users(fitted: tuple[Ranker, Examples]) -> None:
    ranker, _ = fitted
    unseen = hidden_examples(ranker, seed=2)
    assert mean_auc(scores_of(by_blend([1.0, 1.0]), unseen), unseen) < 0.6
    assert mean_auc(scores_of(by_member(ranker), unseen), unseen) > 0.95


def test_training_repeats_exactly_by_seed() -> None:
    states = [trained(seed=3, epochs=2)[0].state_dict() for _ in range(2)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_training_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    trained(epochs=1)
    assert torch.equal(torch.rand(3), wanted)


def test_training_without_any_hit_is_an_error() -> None:
    ranker = random_ranker(trained=False)
    examples = hidden_examples(ranker, seed=1)
    batch = examples.batches[0]
    empty = Examples(
        (dataclasses.replace(batch, labels=torch.zeros_like(batch.labels)),), examples.truth, examples.users
    )
    with pytest.raises(TrainingError, match="nothing to learn"):
        train_network(ranker, (empty,), SETTINGS, epochs=1, generator=torch.Generator())


def test_training_stops_at_a_loss_that_is_not_finite() -> None:
    ranker = random_ranker(trained=False)
    ranker.blend.fill_(float("nan"))
    with pytest.raises(TrainingError, match="not finite"):
        train_network(
            ranker, (hidden_examples(ranker, seed=1),), SETTINGS, epochs=1, generator=torch.Generator().manual_seed(0)
        )


def test_choice_uses_a_network_that_helps() -> None:
    ranker = random_ranker(trained=False)
    choice = choose_network(
        ranker,
        (hidden_examples(ranker, seed=1),),
        hidden_examples(ranker, seed=2),
        SETTINGS,
        generator=torch.Generator().manual_seed(0),
    )
    assert choice.strength > 0
    assert choice.gain > 0.2
    assert not ranker.correction.members[0].network.output.weight.any()  # the trial was a copy


def test_choice_leaves_the_blend_when_the_future_differs() -> None:
    ranker = random_ranker(trained=False)
    future = hidden_examples(ranker, seed=2)
    batch = future.batches[0]
    by_recall = torch.zeros_like(batch.labels).scatter_(
        1, batch.source_scores.sum(-1).masked_fill(~batch.valid, -1e9).topk(4, 1).indices, 1.0
    )
    owners, places = torch.nonzero(by_recall, as_tuple=True)
    truth = truth_of(owners.numpy(), batch.rows[owners, places].numpy(), len(batch.rows))
    decide = Examples((dataclasses.replace(batch, labels=by_recall),), truth, future.users)
    choice = choose_network(
        ranker, (hidden_examples(ranker, seed=1),), decide, SETTINGS, generator=torch.Generator().manual_seed(0)
    )
    assert choice.strength == 0.0


@pytest.mark.parametrize("source", [0, 1])
def test_blend_trusts_the_source_that_is_right(source: int) -> None:
    ranker = random_ranker(trained=False)
    examples = hidden_examples(ranker, seed=1, users=60)
    batch = examples.batches[0]
    right = batch.source_scores[..., source].masked_fill(~batch.valid, -1e9)
    labels = torch.zeros_like(right).scatter_(1, right.topk(4, 1).indices, 1.0)
    owners, places = torch.nonzero(labels, as_tuple=True)
    truth = truth_of(owners.numpy(), batch.rows[owners, places].numpy(), len(batch.rows))
    weights = choose_blend((Examples((dataclasses.replace(batch, labels=labels),), truth, examples.users),))
    assert weights[source] > weights[1 - source]


def test_listwise_loss_weighs_users_the_same_however_many_hits_they_have() -> None:
    ranker = random_ranker(trained=False)
    batch = hidden_examples(ranker, seed=1, users=2).batches[0]
    scores = torch.randn(2, 24, generator=torch.Generator().manual_seed(0))
    alone = [float(listwise_loss(scores[[user]], batch.select(torch.tensor([user])))) for user in range(2)]
    assert float(listwise_loss(scores, batch)) == pytest.approx(np.mean(alone), rel=1e-5)


def test_ndcg_counts_hits_that_recall_missed() -> None:
    ranker = random_ranker(trained=False)
    examples = hidden_examples(ranker, seed=1, users=3, hits_per_user=2)
    perfect = [batch.labels for batch in examples.batches]
    assert ndcg_of_users(perfect, examples).tolist() == pytest.approx([1.0] * 3)
    owners = np.repeat(np.arange(3), examples.truth.sizes)
    missed = truth_of(
        np.concatenate([owners, np.arange(3)]), np.concatenate([examples.truth.item_rows, np.full(3, 49_999)]), 3
    )
    ideal = sum(1 / np.log2(place + 2) for place in range(3))
    wanted = sum(1 / np.log2(place + 2) for place in range(2)) / ideal
    assert ndcg_of_users(perfect, Examples(examples.batches, missed, examples.users)).tolist() == pytest.approx(
        [wanted] * 3
    )


@pytest.mark.parametrize("sources", [1, 2, 3, 4])
def test_blend_shares_add_up_to_one_and_include_each_source_alone(sources: int) -> None:
    shares = blend_shares(sources)
    assert len(set(shares)) == len(shares)
    assert all(sum(point) == pytest.approx(1) for point in shares)
    for source in range(sources):
        assert tuple(float(at == source) for at in range(sources)) in shares


def value_examples(ranker: Ranker, *, right: bool, seed: int = 3) -> Examples:
    """What comes true are the items with the highest predicted value, or random ones."""
    examples = hidden_examples(ranker, seed=seed, users=128)
    batch = examples.batches[0]
    predicted = torch.randn(batch.rows.shape, generator=torch.Generator().manual_seed(seed))
    features = batch.features.clone()
    features[..., PREDICTED_VALUE] = predicted
    told = predicted if right else torch.randn(predicted.shape, generator=torch.Generator().manual_seed(seed + 1))
    labels = torch.zeros_like(batch.labels).scatter_(1, told.masked_fill(~batch.valid, -1e9).topk(4, 1).indices, 1.0)
    owners, places = torch.nonzero(labels, as_tuple=True)
    truth = truth_of(owners.numpy(), batch.rows[owners, places].numpy(), len(batch.rows))
    return Examples((dataclasses.replace(batch, features=features, labels=labels),), truth, examples.users)


def test_predicted_values_get_weight_where_they_come_true() -> None:
    ranker = random_ranker(trained=False)
    assert choose_value_weight(ranker, (value_examples(ranker, right=True),)) > 0


def test_predicted_values_get_no_weight_where_they_tell_nothing() -> None:
    ranker = random_ranker(trained=False)
    examples = [value_examples(ranker, right=False, seed=seed) for seed in (3, 5, 7)]
    assert choose_value_weight(ranker, examples) == 0.0

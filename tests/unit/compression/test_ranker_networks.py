"""Pruning, distillation and rounding while learning, on labels that one item statistic decides."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from compression.ranker.dense import input_scales, linear_layers
from compression.ranker.distil import Lesson, distil, hint_loss, list_loss, new_student, train_rounded
from compression.ranker.prune import Target, prune_to, sensitivity, without_least
from core.errors import CompressionError
from core.sections import RankerSettings
from tests.unit.ranking.test_training import hidden_examples
from tests.unit.ranking.worlds import random_inputs, random_ranker
from training.models.ranker import Ranker
from training.models.ranker_members import NetworkMember
from training.ranking.examples import Examples
from training.ranking.scoring import by_base, by_member, mean_auc, scores_of
from training.ranking.training import train_network

SETTINGS = RankerSettings(epochs=20, learning_rate=0.01, weight_decay=0.0, dropout=0.0, batch_users=16)


@pytest.fixture(scope="module")
def taught() -> tuple[Ranker, Examples, Examples]:
    """A trained ranker, what it learned from, and users that it did not see."""
    ranker = random_ranker(trained=False)
    examples = hidden_examples(ranker, seed=1)
    train_network(ranker, (examples,), SETTINGS, epochs=20, generator=torch.Generator().manual_seed(0))
    return ranker, examples, hidden_examples(ranker, seed=2)


def network(ranker: Ranker) -> NetworkMember:
    member = ranker.correction.members[0]
    assert isinstance(member, NetworkMember)
    return member


def auc(ranker: Ranker, examples: Examples) -> float:
    base, member = by_base(ranker), by_member(ranker)
    return mean_auc(scores_of(lambda batch: base(batch) + member(batch), examples), examples)


def test_neurons_that_say_nothing_are_taken_out_without_a_trace(taught: tuple[Ranker, Examples, Examples]) -> None:
    ranker = copy.deepcopy(taught[0])
    with torch.no_grad():
        layers = [layer for _, layer in linear_layers(network(ranker).network.deep)]
        layers[0].weight[::2] = 0  # of 16, these neurons are dead
        layers[0].bias[::2] = -1
        layers[1].weight[:4] = 0
        layers[1].bias[:4] = -1
        network(ranker).network.cross.layers[1].weight.zero_()
        network(ranker).network.cross.layers[1].bias.zero_()
    found = sensitivity(ranker, (taught[1],))
    smaller = without_least(ranker, found, Target((8, 4), 1))
    inputs = random_inputs(5, 16)
    with torch.no_grad():
        for wanted, got in zip(ranker(*inputs), smaller(*inputs), strict=True):
            np.testing.assert_allclose(got.numpy(), wanted.numpy(), atol=1e-5)


def test_pruned_ranker_keeps_its_quality(taught: tuple[Ranker, Examples, Examples]) -> None:
    ranker, examples, later = taught
    smaller, left = prune_to(ranker, (examples,), Target((6, 4), 0), SETTINGS, epochs=4, seed=0)
    assert (smaller.shape.hidden, smaller.shape.cross_layers) == ((6, 4), 0)
    assert [one.layer for one in left] == ["members.0.attention"]
    assert auc(smaller, later) > auc(ranker, later) - 0.02
    assert ranker.shape.hidden == (16, 8)


@pytest.mark.parametrize("target", [Target((32, 8), 1), Target((16,), 1), Target((16, 8), 3), Target((16, 1), 1)])
def test_sizes_that_cannot_be_pruned_to_are_refused(taught: tuple[Ranker, Examples, Examples], target: Target) -> None:
    with pytest.raises(CompressionError, match="cannot be pruned"):
        prune_to(taught[0], (taught[1],), target, SETTINGS, epochs=1, seed=0)


def test_student_learns_the_teachers_order_without_labels(taught: tuple[Ranker, Examples, Examples]) -> None:
    teacher, examples, later = taught
    student = new_student(teacher, (8, 4), 0, seed=1)
    before = auc(student, later)
    distil(student, teacher, (examples,), SETTINGS, Lesson(teacher=1.0, hint=0.0), epochs=20, seed=1)
    assert auc(student, later) > before + 0.5 * (auc(teacher, later) - before)


def test_hint_is_zero_for_the_same_vectors_at_any_rotation() -> None:
    hidden, valid = torch.randn(2, 9, 4), torch.ones(2, 9, dtype=torch.bool)
    rotation = torch.linalg.qr(torch.randn(4, 4))[0]
    assert float(hint_loss(hidden @ rotation, hidden, valid)) == pytest.approx(0, abs=1e-10)
    assert float(hint_loss(torch.randn(2, 9, 3), hidden, valid)) > 0.01


def test_list_loss_is_lowest_at_the_teachers_own_scores() -> None:
    wanted, valid = torch.randn(3, 8), torch.ones(3, 8, dtype=torch.bool)
    scores = wanted.clone().requires_grad_()
    list_loss(scores, wanted, valid, 1.0).backward()
    assert float(scores.grad.abs().max()) < 1e-6  # type: ignore[union-attr]


def test_hint_reaches_the_student(taught: tuple[Ranker, Examples, Examples]) -> None:
    teacher, examples, _ = taught
    students = []
    for hint in (0.0, 1.0):
        student = new_student(teacher, (8, 4), 0, seed=1)
        distil(student, teacher, (examples,), SETTINGS, Lesson(0.5, hint), epochs=1, seed=1)
        students.append(student)
    layers = [linear_layers(network(student).network.deep)[0][1].weight for student in students]
    assert not torch.equal(*layers)


def test_rounded_training_leaves_plain_layers_behind(taught: tuple[Ranker, Examples, Examples]) -> None:
    ranker, (_, examples, later) = copy.deepcopy(taught[0]), taught
    layers = network(ranker).network
    before = [layer for _, layer in linear_layers(layers)]
    values = before[0].weight.detach().clone()
    scales = input_scales(layers, lambda: [ranker(*random_inputs(8, 16, seed=seed)) for seed in range(2)] and None)
    train_rounded(ranker, (examples,), SETTINGS, scales, epochs=1, seed=0)
    after = [layer for _, layer in linear_layers(layers)]
    assert all(one is other for one, other in zip(before, after, strict=True))
    assert not torch.equal(values, before[0].weight)
    assert auc(ranker, later) > auc(taught[0], later) - 0.02

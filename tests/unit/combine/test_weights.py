"""Learned weights on tables with a planted answer."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from core.metrics import Truth
from training.combine.tables import WindowTable
from training.combine.weights import (
    Learning,
    Weighting,
    best_member,
    clearly_better,
    cross_fitted,
    learn_weights,
)

PLAIN = Learning(older_weight=1.0, follow_time=False, by_user=False)
USERS, ITEMS, HITS = 400, 60, 3


def planted(strengths: torch.Tensor, seed: int = 0) -> WindowTable:
    """Each member sees a part of what decides: an item comes true by the sum of all parts times ``strengths``.

    Args:
        strengths: ``(M,)`` or, one row per user, ``(USERS, M)``; 0 for a member of noise.
        seed: Of the draws.
    """
    generator = torch.Generator().manual_seed(seed)
    members = strengths.shape[-1]
    standard = torch.randn(USERS, ITEMS, members, generator=generator)
    gumbel = -torch.log(-torch.log(torch.rand(USERS, ITEMS, generator=generator)))
    appeal = torch.einsum("ucm,um->uc", standard, strengths.expand(USERS, -1)) + gumbel
    chosen = appeal.topk(HITS, dim=1).indices
    labels = torch.zeros(USERS, ITEMS).scatter(1, chosen, 1.0)
    facts = torch.stack([torch.linspace(-1, 1, USERS), torch.zeros(USERS)], dim=1)
    truth = Truth(np.arange(USERS + 1) * HITS, chosen.flatten().numpy())
    rows = torch.arange(ITEMS).expand(USERS, -1)
    return WindowTable(standard, rows, labels, facts, truth, np.arange(USERS))


def test_weights_find_the_planted_proportions() -> None:
    weighting = learn_weights([planted(torch.tensor([1.5, 0.75, 0.0]))], PLAIN)
    torch.testing.assert_close(weighting.weights, torch.tensor([2 / 3, 1 / 3, 0.0]), atol=0.06, rtol=0)
    assert weighting.weights.sum() == pytest.approx(1)


def test_learned_sum_beats_the_best_member_on_users_it_has_not_seen() -> None:
    tables = [planted(torch.tensor([1.0, 0.7, 0.0]))]
    alone = cross_fitted("alone", tables, lambda users: best_member(tables, users))
    learned = cross_fitted("learned", tables, lambda users: learn_weights(tables, PLAIN, users))
    assert clearly_better(learned, alone)
    assert not clearly_better(alone, learned)


def test_best_member_is_the_one_that_decides() -> None:
    assert best_member([planted(torch.tensor([0.2, 1.5]))]).weights.tolist() == [0.0, 1.0]


def test_weights_by_user_follow_the_users_facts() -> None:
    lean = torch.linspace(0, 1, USERS)
    table = planted(torch.stack([1.5 * lean, 1.5 * (1 - lean)], dim=1))
    weighting = learn_weights([table], Learning(1.0, follow_time=False, by_user=True))
    first = weighting.of_users(table.facts)[:, 0]
    assert first[0] < 0.3
    assert first[-1] > 0.7
    even = table.ndcg(torch.ones(2)).mean()
    assert table.ndcg(weighting.of_users(table.facts)).mean() > even + 0.02


def test_trend_over_windows_is_followed_into_the_next() -> None:
    tables = [planted(torch.tensor([2 - 0.5 * at, 0.5 + 0.5 * at]), seed=at) for at in range(3)]
    still = learn_weights(tables, PLAIN)
    moving = learn_weights(tables, Learning(1.0, follow_time=True, by_user=False))
    assert still.weights[1] == pytest.approx(0.45, abs=0.08)
    assert moving.weights[1] > still.weights[1] + 0.15


def test_newer_windows_have_more_say() -> None:
    tables = [planted(torch.tensor([2.0, 0.2])), planted(torch.tensor([0.2, 2.0]), seed=1)]
    even = learn_weights(tables, PLAIN)
    newest = learn_weights(tables, Learning(older_weight=0.1, follow_time=False, by_user=False))
    assert even.weights[1] == pytest.approx(0.5, abs=0.06)
    assert newest.weights[1] > 0.65


def test_cross_fitted_weights_never_come_from_the_user_they_judge() -> None:
    tables = [planted(torch.tensor([1.0, 1.0]))]
    taught: list[np.ndarray] = []

    def learn(users: list[np.ndarray]) -> Weighting:
        taught.append(users[0])
        return Weighting.fixed(torch.ones(2))

    trial = cross_fitted("even", tables, learn)
    assert (np.sum(taught, axis=0) == len(taught) - 1).all()
    np.testing.assert_allclose(trial.values, tables[0].ndcg(torch.ones(2)))


def test_copies_are_averaged_in_groups() -> None:
    table = planted(torch.tensor([1.0, 1.0, 1.0]))
    grouped = table.grouped([2, 1])
    torch.testing.assert_close(grouped.standard[:, :, 0], table.standard[:, :, :2].mean(dim=2))
    torch.testing.assert_close(grouped.standard[:, :, 1], table.standard[:, :, 2])

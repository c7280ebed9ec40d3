"""What clients compute: one client with everything is central training, no user exceeds the clip."""

from __future__ import annotations

import numpy as np
import pytest

from training.federated.client_maths import COUNTS, Constants, Shard, clipped_gradient, fold_in, local_table, statistics
from training.models.mf_problem import Interactions, Objective, exact_half_step

CONSTANTS = Constants(scale=1.3, all_weight=0.2, regularisation=0.05, frequency_power=0.9, user_count=6.0)
N_ITEMS, DIMENSION = 9, 4


def shard_of(users: int, seed: int = 0) -> Shard:
    rng = np.random.default_rng(seed)
    rows = [np.sort(rng.choice(N_ITEMS, rng.integers(2, 6), replace=False)) for _ in range(users)]
    starts = np.concatenate([[0], np.cumsum([len(one) for one in rows])])
    weights = rng.uniform(0.5, 2, starts[-1])
    return Shard(starts, np.concatenate(rows), weights, np.ones(starts[-1]), rng.uniform(0, 1, starts[-1]))


@pytest.fixture
def items() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(N_ITEMS, DIMENSION))


def test_fold_in_and_table_of_one_client_are_the_exact_half_steps(items: np.ndarray) -> None:
    shard = shard_of(6)
    weights = (CONSTANTS.scale * shard.weights).astype(np.float32)
    by_user, by_item = Interactions.both_ways(shard.starts, shard.item_rows, weights, N_ITEMS)
    objective = Objective(CONSTANTS.all_weight, CONSTANTS.regularisation, CONSTANTS.frequency_power)
    users = exact_half_step(by_user, items, objective)
    assert fold_in(shard, items, CONSTANTS) == pytest.approx(users, rel=1e-5)
    change, share, gram = local_table(shard, items, by_item.mass, None, CONSTANTS, 1, 0.0)
    seen = by_item.mass > 0
    assert (items + change)[seen] == pytest.approx(exact_half_step(by_item, users, objective)[seen], rel=1e-4, abs=1e-6)
    assert share[seen] == pytest.approx(np.ones(seen.sum()), rel=1e-5)
    assert gram == pytest.approx(users.T @ users, rel=1e-5)


def test_the_proximal_term_keeps_the_table_near_everybodys(items: np.ndarray) -> None:
    shard = shard_of(6)
    mass = np.bincount(shard.item_rows, CONSTANTS.scale * shard.weights, N_ITEMS)
    free, held = (np.abs(local_table(shard, items, mass, None, CONSTANTS, 2, mu)[0]).sum() for mu in (0.0, 5.0))
    assert 0 < held < free / 2


def test_no_user_gives_more_than_the_clip(items: np.ndarray) -> None:
    for seed in range(20):
        shard = shard_of(1, seed)
        gradient, gram = clipped_gradient(shard, 10 * items, CONSTANTS, clip=0.01, gram_weight=2.0)
        assert np.sqrt((gradient**2).sum() + (gram**2).sum()) == pytest.approx(0.01)
        assert np.linalg.norm(statistics(shard, N_ITEMS, clip=0.5)) == pytest.approx(0.5)


def test_a_loose_clip_leaves_the_gradient_of_the_loss(items: np.ndarray) -> None:
    shard = shard_of(6)
    users = fold_in(shard, items, CONSTANTS)

    def observed(table: np.ndarray) -> float:
        gaps = [1 - table[shard.item_rows[part]] @ user for part, user in zip(shard.users(), users, strict=True)]
        return 0.5 * float(np.concatenate(gaps) ** 2 @ (CONSTANTS.scale * shard.weights))

    gradient, _ = clipped_gradient(shard, items, CONSTANTS, clip=1e9, gram_weight=1.0)
    moved = items.copy()
    moved[2, 1] += 1e-5
    assert (observed(items) - observed(moved)) / 1e-5 == pytest.approx(gradient[2, 1], rel=1e-3)


def test_statistics_add_up_over_clients() -> None:
    whole = shard_of(6)
    cut = int(whole.starts[2])
    names = ("item_rows", "weights", "lengths_factor", "recent")
    first = Shard(whole.starts[:3], *(getattr(whole, name)[:cut] for name in names))
    second = Shard(whole.starts[2:] - cut, *(getattr(whole, name)[cut:] for name in names))
    total = statistics(whole, N_ITEMS)
    assert statistics(first, N_ITEMS) + statistics(second, N_ITEMS) == pytest.approx(total)
    assert total[-COUNTS] == 6

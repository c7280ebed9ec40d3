"""What the served rank step promises, whatever its weights."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from core.tensors import MASKED
from tests.unit.ranking.worlds import random_inputs, random_ranker, random_tables
from training.models.ranker import ItemTables, Ranker
from training.models.ranker_merge import merge

N_ITEMS = 50


def ranked(ranker: Ranker, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    with torch.no_grad():
        outputs: tuple[Tensor, ...] = ranker(*inputs)
    return outputs


def test_untrained_ranker_orders_by_the_blend() -> None:
    ranker, inputs = random_ranker(trained=False), random_inputs(5, 32)
    ranker.blend.copy_(torch.tensor([0.7, 1.3]))
    merged = merge(inputs[4::2], inputs[5::2])
    blend = torch.where(merged.valid, 0.7 * merged.scores[..., 0] + 1.3 * merged.scores[..., 1], MASKED)
    best, places = blend.topk(10, dim=1)
    rows, scores, _, _ = ranked(ranker, inputs)
    torch.testing.assert_close(scores, best)
    assert torch.equal(rows, merged.rows.gather(1, places))


def test_strength_zero_silences_a_trained_network() -> None:
    silent, inputs = random_ranker(), random_inputs(4, 16)
    silent.strength.fill_(0.0)
    assert torch.equal(ranked(silent, inputs)[0], ranked(random_ranker(trained=False), inputs)[0])
    assert not torch.equal(ranked(random_ranker(), inputs)[1], ranked(silent, inputs)[1])


def test_scores_descend_and_no_item_comes_twice() -> None:
    rows, scores, _, _ = ranked(random_ranker(), random_inputs(7, 32))
    assert bool((scores[:, :-1] >= scores[:, 1:]).all())
    assert all(len(set(user)) == len(user) for user in rows.tolist())


def test_masked_candidates_come_last_as_padding() -> None:
    inputs = random_inputs(4, 16, masked=9)  # 3 valid per source
    rows, scores, reasons, weights = ranked(random_ranker(), inputs)
    valid = merge(inputs[4::2], inputs[5::2]).valid.sum(1)
    for user, count in enumerate(valid.tolist()):
        assert bool((scores[user, :count] > MASKED / 2).all())
        assert rows[user, count:].tolist() == [N_ITEMS] * (10 - count)
        assert scores[user, count:].tolist() == [pytest.approx(MASKED)] * (10 - count)
        assert reasons[user, count:].unique().tolist() == [N_ITEMS]
        assert float(weights[user, count:].abs().sum()) == 0.0


def test_no_candidates_at_all_gives_padding_without_nan() -> None:
    rows, scores, _, weights = ranked(random_ranker(), random_inputs(3, 16, masked=12))
    assert rows.unique().tolist() == [N_ITEMS]
    assert bool(torch.isfinite(scores).all())
    assert float(weights.sum()) == 0.0


def test_equal_scores_keep_the_order_of_the_lists() -> None:
    inputs = list(random_inputs(3, 16, masked=0))
    inputs[5] = inputs[7] = torch.ones(3, 12)
    ranker = random_ranker(trained=False)
    merged = merge(inputs[4::2], inputs[5::2])
    rows, _, _, _ = ranked(ranker, tuple(inputs))
    for user in range(3):
        assert rows[user].tolist() == merged.rows[user][merged.valid[user]][:10].tolist()


def test_empty_history_has_no_reasons_and_finite_scores() -> None:
    rows, scores, reasons, weights = ranked(random_ranker(), random_inputs(3, 16))
    assert reasons[0].unique().tolist() == [N_ITEMS]
    assert float(weights[0].sum()) == 0.0
    assert bool(torch.isfinite(scores[0]).all())
    assert bool((rows[0] < N_ITEMS).any())


def test_reasons_are_past_items_with_descending_weights() -> None:
    inputs = random_inputs(6, 32)
    _, _, reasons, weights = ranked(random_ranker(), inputs)
    assert bool((weights[..., :-1] >= weights[..., 1:]).all())
    assert bool((weights.sum(-1) <= 1 + 1e-5).all())
    for user in range(1, 6):
        past = set(inputs[0][user].tolist())
        assert set(reasons[user].flatten().tolist()) <= past | {N_ITEMS}


def test_short_history_pads_its_reasons() -> None:
    inputs = list(random_inputs(2, 16))
    inputs[0][1] = N_ITEMS
    inputs[0][1, 0] = 7
    _, _, reasons, weights = ranked(random_ranker(), tuple(inputs))
    assert reasons[1, 0].tolist() == [7, N_ITEMS, N_ITEMS]
    torch.testing.assert_close(weights[1, 0], torch.tensor([1.0, 0.0, 0.0]))


def test_reasons_come_from_the_block_of_the_recommended_item() -> None:
    ranker = random_ranker()
    block = torch.arange(N_ITEMS) % 4
    noise = 0.1 * torch.randn(N_ITEMS, 8, generator=torch.Generator().manual_seed(1))
    vectors = torch.cat([torch.eye(8)[block] + noise, torch.zeros(1, 8)])
    tables = ranker.tables
    ranker = ranker.with_tables(ItemTables(vectors, torch.zeros(N_ITEMS + 1, 4), tables.statistics, tables.codes))
    inputs = list(random_inputs(6, 32))
    inputs[0] = torch.stack([torch.randperm(N_ITEMS)[:32] for _ in range(6)])  # every block is in every past
    rows, _, reasons, weights = ranked(ranker, tuple(inputs))
    assert torch.equal(block[reasons], block[rows].unsqueeze(-1).expand_as(reasons))
    assert float(weights.min()) > 0


def test_padding_of_the_history_does_not_change_the_answer() -> None:
    inputs = random_inputs(4, 16)
    longer = tuple(
        torch.nn.functional.pad(part, (0, 48), value=N_ITEMS if part.dtype == torch.int64 else 0.0)
        for part in inputs[:3]
    )
    for short, long in zip(
        ranked(random_ranker(), inputs), ranked(random_ranker(), (*longer, *inputs[3:])), strict=True
    ):
        torch.testing.assert_close(short, long, rtol=1e-4, atol=1e-5)


def test_rotated_item_vectors_give_the_same_answer() -> None:
    ranker, inputs = random_ranker(), random_inputs(4, 16)
    tables = ranker.tables
    rotation, _ = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(2)))
    turned = ItemTables(tables.keys[:, :8] @ rotation, tables.keys[:, 8:], tables.statistics, tables.codes)
    for before, after in zip(ranked(ranker, inputs), ranked(ranker.with_tables(turned), inputs), strict=True):
        torch.testing.assert_close(before, after, rtol=1e-3, atol=1e-4)


def test_with_tables_leaves_the_original_alone() -> None:
    ranker, inputs = random_ranker(), random_inputs(4, 16)
    before = ranked(ranker, inputs)
    other = ranker.with_tables(random_tables(N_ITEMS, 8, 4, torch.Generator().manual_seed(9)))
    other.blend.fill_(5.0)
    assert all(torch.equal(one, two) for one, two in zip(before, ranked(ranker, inputs), strict=True))
    assert not torch.equal(before[1], ranked(other, inputs)[1])

"""The packed ranker: the same answers without loss, close ones with, the same file back, one graph per flavour."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from compression.ranker.compressor import RATING, restore_plain
from compression.ranker.dense import QuantLinear, RoundedLinear, input_scales, linear_layers, quantize_layers
from compression.ranker.fold import TableBits, fold, leading_directions
from compression.ranker.module import CompactNetwork, CompactRanker
from compression.ranker.store import compact_facts, compact_tensors, restore_compact
from core.errors import ArtifactError, CompressionError
from core.tensors import MASKED, rank_step
from export.onnx_graph import export_graph
from export.parity import check_parity
from tests.unit.ranking.worlds import SOURCES, random_inputs, random_ranker
from training.models.ranker import Ranker
from training.models.ranker_merge import merge
from training.ratings.model import RatingFacts, ValuePosterior

RANK = rank_step(SOURCES)
MEMBERS = (("network",), ("network", "network", "trees", "linear"), ("linear",))
ITEMS, D, S = 50, 3, 4


def with_values(ranker: Ranker) -> Ranker:
    """The ranker with a rating model of noise among its tables."""
    g = torch.Generator().manual_seed(3)
    normal = lambda *shape: torch.randn(*shape, generator=g)  # noqa: E731
    directions = normal(ITEMS + 1, S)
    directions[-1] = 0
    tables = {
        "item_features": torch.cat([torch.ones(ITEMS + 1, 1), normal(ITEMS + 1, D)], 1),
        "item_bias": normal(ITEMS + 1),
        "item_variance": normal(ITEMS + 1, D + 1).square() * 0.1,
        "item_directions": directions,
        "item_statistics": normal(ITEMS + 1, 4),
        "user_codes": normal(4, D + 1),
        "code_offsets": torch.zeros(1, dtype=torch.int64),
        "user_dense": normal(3 + S, D + 1) * 0.3,
        "spectral_mean": normal(S) * 0.1,
        "user_precision": torch.ones(D + 1) * 2,
    }
    facts = RatingFacts(3.5, 1.1, 1, 5, 4, 0.5, 0.1, 2.0, (2.0, 1.0, -3.0, 3.0), 4)
    ranker.tables.rating = ValuePosterior(tables, facts)
    ranker.shape = type(ranker.shape)(**{**ranker.shape.__dict__, "rating": ranker.tables.rating.as_facts()})
    ranker.value_weight.fill_(0.7)
    return ranker


@pytest.fixture(scope="module", params=MEMBERS, ids="+".join)
def ranker(request: pytest.FixtureRequest) -> Ranker:
    return with_values(random_ranker(members=request.param))


@pytest.fixture(scope="module", params=[0, 10], ids=["all candidates", "the first ten"])
def small(request: pytest.FixtureRequest) -> CompactRanker:
    """int8 tables and layers."""
    model, _ = fold(with_values(random_ranker()), TableBits(4, 8, 4, 8, 8), kept=request.param)
    network = network_of(model)
    scales = input_scales(network, lambda: [model(*random_inputs(16, 32, seed=s)) for s in range(3)] and None)
    assert quantize_layers(network, scales) == ()
    return model


def network_of(model: CompactRanker) -> torch.nn.Module:
    member = model.members[0]
    assert isinstance(member, CompactNetwork)
    return member.network


def run(model: torch.nn.Module, batch: int = 7, length: int = 32, seed: int = 0) -> list[np.ndarray]:
    with torch.no_grad():
        return [part.numpy() for part in model(*random_inputs(batch, length, seed=seed))]


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_packed_ranker_answers_as_the_original(ranker: Ranker, batch: int) -> None:
    model, unchanged = fold(ranker)
    assert unchanged == ()
    for wanted, found in zip(run(ranker, batch), run(model, batch), strict=True):
        np.testing.assert_allclose(found, wanted, atol=2e-5, rtol=1e-5)


def test_ranker_without_values_answers_as_the_original() -> None:
    ranker = random_ranker()
    model, _ = fold(ranker)
    for wanted, found in zip(run(ranker), run(model), strict=True):
        np.testing.assert_allclose(found, wanted, atol=2e-5, rtol=1e-5)


def test_scoring_as_many_candidates_as_there_are_changes_nothing(ranker: Ranker) -> None:
    model, _ = fold(ranker, kept=len(SOURCES) * ranker.shape.candidates)
    for wanted, found in zip(run(ranker), run(model), strict=True):
        np.testing.assert_allclose(found, wanted, atol=2e-5, rtol=1e-5)


def test_a_short_ranker_orders_the_candidates_that_the_blend_puts_first(ranker: Ranker) -> None:
    kept = ranker.shape.returned
    everything = replace(ranker.shape, returned=len(SOURCES) * ranker.shape.candidates)
    whole, _ = fold(ranker)
    whole.shape = everything
    (rows, scores, *_), (short_rows, short_scores, *_) = run(whole), run(fold(ranker, kept=kept)[0])
    merged = merge(random_inputs(7, 32, seed=0)[4::2], random_inputs(7, 32, seed=0)[5::2])
    blended = torch.where(merged.valid, (merged.scores * ranker.blend).sum(-1), MASKED)
    for user in range(7):
        first = merged.rows[user, torch.topk(blended[user], kept).indices]
        valid = set(first[torch.topk(blended[user], kept).values > MASKED / 2].tolist())
        wanted = [(row, score) for row, score in zip(rows[user], scores[user], strict=True) if int(row) in valid]
        found = [pair for pair in zip(short_rows[user], short_scores[user], strict=True) if pair[1] > MASKED / 2]
        assert [row for row, _ in found] == [row for row, _ in wanted]
        np.testing.assert_allclose([s for _, s in found], [s for _, s in wanted], atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize(("bits", "worst"), [(16, 0.01), (8, 0.2)])
def test_scores_stay_close_at_fewer_bits(ranker: Ranker, bits: int, worst: float) -> None:
    model, _ = fold(ranker, TableBits.all(bits))
    scores, found = run(ranker)[1], run(model)[1]
    assert np.abs(scores - found).max() < worst
    assert np.abs(scores - found).max() > 0


def test_leading_directions_keep_products_at_full_rank() -> None:
    vectors = torch.randn(30, 6, generator=torch.Generator().manual_seed(0))
    turned = leading_directions(vectors, 1.0, mix=True)
    np.testing.assert_allclose((turned @ turned.T).numpy(), (vectors @ vectors.T).numpy(), atol=1e-4)


def test_leading_directions_drop_what_holds_nothing() -> None:
    low = torch.randn(30, 2, dtype=torch.float64) @ torch.randn(2, 6, dtype=torch.float64)
    assert leading_directions(low.float(), 0.9999, mix=True).shape == (30, 2)


def test_keys_with_a_flat_spectrum_are_told_as_unchanged() -> None:
    ranker = random_ranker()
    ranker.tables.keys[:8, :8] = torch.eye(8)
    ranker.tables.keys[8:, :8] = 0
    _, unchanged = fold(ranker, TableBits.all(8), 0.99)
    assert any("similarity" in one.layer for one in unchanged)


def test_tables_with_nan_are_refused() -> None:
    ranker = random_ranker()
    ranker.tables.keys[3, 2] = torch.nan
    with pytest.raises(CompressionError, match="not finite"):
        fold(ranker, TableBits.all(8))


def test_stored_ranker_comes_back_bit_for_bit(small: CompactRanker) -> None:
    tensors = {name: one.tensor for name, one in compact_tensors(small).items()}
    again = restore_compact(tensors, json.loads(json.dumps(compact_facts(small))))
    for wanted, found in zip(run(small), run(again), strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_plain_ranker_comes_back(ranker: Ranker) -> None:
    tensors = {name: one.tensor for name, one in compact_tensors(ranker).items()}
    assert any(name.startswith(RATING) for name in tensors)
    again = restore_plain(tensors, json.loads(json.dumps({"shape": ranker.shape.to_facts()})))
    for wanted, found in zip(run(ranker), run(again), strict=True):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(
    ("broken", "named"),
    [
        (lambda t: t.pop("both.codes"), "both.codes"),
        (lambda t: t.update({"both.codes": t["both.codes"][:-1]}), "both.codes"),
        (lambda t: t.update({"both.codes": t["both.codes"].short()}), "both.codes"),
        (lambda t: t.update({"item.scales": t["item.scales"] * torch.nan}), "item.scales"),
        (lambda t: t.update({"more": torch.zeros(1)}), "more"),
    ],
    ids=["missing", "truncated", "dtype", "nan", "left over"],
)
def test_tensors_that_do_not_fit_are_refused_by_name(small: CompactRanker, broken: object, named: str) -> None:
    tensors = {name: one.tensor.clone() for name, one in compact_tensors(small).items()}
    broken(tensors)  # type: ignore[operator]
    with pytest.raises(ArtifactError, match="does not fit") as caught:
        restore_compact(tensors, compact_facts(small))
    assert named in str(caught.value)


def test_int8_layers_round_as_training_did() -> None:
    layer = torch.nn.Linear(6, 4)
    inputs = torch.randn(50, 6)
    found, taught = QuantLinear.of(layer, 0.03)(inputs), RoundedLinear(layer, 0.03)(inputs)
    np.testing.assert_allclose(found.detach().numpy(), taught.detach().numpy(), atol=1e-5)
    taught.sum().backward()
    assert layer.weight.grad is not None
    assert bool(layer.weight.grad.any())


def test_layers_of_zeros_are_left_alone_and_told() -> None:
    model, _ = fold(random_ranker(trained=False))
    network = network_of(model)
    left = quantize_layers(network, dict.fromkeys((name for name, _ in linear_layers(network)), 0.1))
    assert [one.layer for one in left] == ["output"]


def test_layer_without_inputs_has_no_range() -> None:
    with pytest.raises(CompressionError, match="no input"):
        input_scales(torch.nn.Sequential(torch.nn.Linear(2, 2)), lambda: None)


@pytest.mark.parametrize("flavour", ["onnxruntime", "tensorrt"])
def test_graph_answers_as_the_module(small: CompactRanker, flavour: str, tmp_path: Path) -> None:
    path = tmp_path / "rank.onnx"
    names = [spec.name for spec in RANK.inputs]
    requests = [random_inputs(batch, 32, seed=batch) for batch in (1, 2, 7)]
    feeds = [{name: part.numpy() for name, part in zip(names, request, strict=True)} for request in requests]
    example = {name: torch.from_numpy(array) for name, array in feeds[1].items()}
    export_graph(small.served(flavour), RANK, example, path, opset=20, max_batch=64)  # type: ignore[arg-type]
    check_parity(small, RANK, path, feeds)
    graph = onnx.load(path).graph
    kinds = {node.op_type for node in graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= kinds
    assert not kinds & {"MatMulInteger", "DynamicQuantizeLinear", "QLinearMatMul", "NonZero", "ScatterND", "Loop"}
    tables = {one.name: one.data_type for one in graph.initializer if one.name.endswith(".codes")}
    wanted = onnx.TensorProto.INT8 if flavour == "onnxruntime" else onnx.TensorProto.INT32
    assert tables == dict.fromkeys(("both.codes", "past.codes", "item.codes"), wanted)

"""Large tables in blocks: arranged once, scanned in part, and what comes back is what a whole scan gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from bench.scan import HISTORY, made_model, made_requests
from compression.block_form import BlockTable
from compression.block_reach import Reaches, whole_numbers
from compression.blocks import ROWS, Blocks, make_blocks
from compression.candidate import Candidate, served_form
from compression.packed import PackedBlocks
from compression.quantize import quantize
from compression.recall import RecallCompressor, compress
from compression.recipe import all_recipes
from compression.registry import restore
from compression.store import save_candidate
from compression.task import Task
from core.tensors import MASKED, recall_step
from export.onnx_graph import export_graph
from export.parity import check_parity, open_session
from training.models.spectral_model import SpectralRecall

ITEMS, WIDTH, K = 3_000, 16, 10
RECIPES = {recipe.name: recipe for recipe in all_recipes()}


def user_vectors(model: SpectralRecall, seed: int = 5) -> torch.Tensor:
    rows = torch.randint(0, model.n_items, (300, HISTORY), generator=torch.Generator().manual_seed(seed))
    return model.history_vectors[rows].sum(1)


@pytest.fixture(scope="module")
def model() -> SpectralRecall:
    return made_model(ITEMS, WIDTH, K, np.random.default_rng(0))


@pytest.fixture(scope="module")
def blocked(model: SpectralRecall) -> Candidate:
    return arranged(model)


@pytest.fixture(scope="module")
def exported(blocked: Candidate, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(served(blocked), tmp_path_factory.mktemp("blocks"))


def arranged(model: SpectralRecall, name: str = "blocks-int8-rows") -> Candidate:
    """The model with its items in blocks, though it is small."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("compression.tables.BLOCKS_FROM_ITEMS", 100)
        patch.setattr("compression.blocks.SCANNED_AT_MOST", 0.9)
        return compress("recall_spectral", model, {id(model): user_vectors(model)}, RECIPES[name], 0)


def export(graph: SpectralRecall, folder: Path) -> Path:
    example = {
        name: torch.from_numpy(array) for name, array in made_requests(ITEMS, 2, np.random.default_rng(0)).items()
    }
    export_graph(graph, recall_step("spectral"), example, folder / "model.onnx", opset=20, max_batch=8)
    return folder / "model.onnx"


def served(candidate: Candidate) -> SpectralRecall:
    graph = served_form(candidate.module, "onnxruntime")
    assert isinstance(graph, SpectralRecall)
    return graph


def ask(graph: torch.nn.Module, feed: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    with torch.no_grad():
        rows, scores = graph(*(torch.from_numpy(feed[tensor.name]) for tensor in recall_step("spectral").inputs))
    return rows.numpy(), scores.numpy()


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 400), st.integers(0, 2**20))
def test_every_item_lies_in_one_block(n_items: int, seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    values = torch.cat([torch.randn(n_items, 6, generator=rng), torch.zeros(1, 6)])
    bias = torch.cat([torch.randn(n_items, generator=rng).round(), torch.tensor([MASKED])])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("compression.blocks.SCANNED_AT_MOST", np.inf)
        made = make_blocks(values, bias, bias, torch.randn(20, 6, generator=rng), 5, seed)
    assert made is not None
    held = made.order.flatten().sort().values
    assert held[:n_items].tolist() == list(range(n_items))
    assert bool((held[n_items:] == n_items).all())
    assert made.order.shape[1] == ROWS


@settings(max_examples=25, deadline=None)
@given(st.integers(20, 400), st.integers(0, 2**20), st.integers(0, 60))
def test_all_blocks_give_what_a_whole_scan_gives(n_items: int, seed: int, excluded: int) -> None:
    """With P = C and every item scored exactly: rows, scores, ties to the lower row, exclusions, empty histories."""
    rng = torch.Generator().manual_seed(seed)
    drawn = torch.randn(n_items, 6, generator=rng)
    drawn[n_items // 2 :] = drawn[: n_items - n_items // 2].clone()  # ties
    table = quantize(torch.cat([drawn, torch.zeros(1, 6)]), 8, "rows")
    biases = [torch.cat([torch.full((n_items,), value), torch.tensor([MASKED])]) for value in (0.25, -0.5)]
    count = -(-n_items // ROWS)
    order = torch.full((count * ROWS,), n_items)
    order[:n_items] = torch.randperm(n_items, generator=rng)
    blocks = Blocks(order.view(-1, ROWS).sort(1).values.int(), torch.eye(6), count, 1.0)
    form = BlockTable(table, blocks, *biases, spare=n_items)
    vectors, filled = torch.randn(3, 6, generator=rng), torch.tensor([[1.0], [0.0], [1.0]])
    vectors[2] = 0
    exclude = torch.randint(0, n_items + 1, (3, excluded + 2), generator=rng)
    rows, scores = form.best(vectors, filled, exclude, 10)
    exact = vectors @ table.values().T + torch.where(filled > 0, biases[0], biases[1])
    exact = exact.scatter(1, exclude, MASKED)[:, :n_items]
    for user in range(3):
        wanted = sorted(range(n_items), key=lambda row: (-float(exact[user, row]), row))[:10]
        allowed = [row for row in wanted if exact[user, row] > MASKED / 2]
        found = rows[user, : len(allowed)]
        torch.testing.assert_close(scores[user, : len(allowed)], exact[user, allowed], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(exact[user, found], exact[user, allowed], rtol=1e-5, atol=1e-5)
        assert len(set(found.tolist())) == len(allowed)
        assert bool((scores[user, len(allowed) :] <= MASKED / 2).all())


def test_exported_blocks_give_what_torch_gives(blocked: Candidate, exported: Path) -> None:
    graph = served(blocked)
    assert graph.finds_best
    assert not served_form(blocked.module, "tensorrt").finds_best  # type: ignore[operator]
    rng = np.random.default_rng(3)
    feeds = [made_requests(ITEMS, batch, rng) for batch in (1, 2, 7)]
    feeds[1]["history_rows"][-1], feeds[1]["exclude_rows"][-1] = ITEMS, ITEMS  # an empty history
    assert all(one.passed for one in check_parity(graph, recall_step("spectral"), exported, feeds))


def test_equal_scores_are_ordered_by_row(tmp_path: Path) -> None:
    """Four items of each vector, and biases of no more than a handful of values."""
    drawn = made_model(ITEMS // 4, WIDTH, K, np.random.default_rng(1))
    table = torch.cat([drawn.item_vectors[:-1].repeat(4, 1), drawn.item_vectors[-1:]])
    bias = torch.cat([torch.zeros(ITEMS), torch.tensor([MASKED])])
    four = SpectralRecall(table, table.clone(), bias, bias.clone(), weighting=drawn.weighting, candidates=K).eval()
    session = open_session(export(served(arranged(four)), tmp_path))
    for seed in range(5):
        feed = made_requests(ITEMS, 3, np.random.default_rng(seed))
        feed["exclude_rows"][:] = ITEMS
        rows, scores = session.run(None, feed)
        same = scores[:, 1:] == scores[:, :-1]
        assert same.any()
        assert (rows[:, 1:] > rows[:, :-1])[same].all()
        assert np.array_equal(session.run(None, feed)[0], rows)


def test_blocks_find_nearly_all_that_a_whole_scan_finds(blocked: Candidate, model: SpectralRecall) -> None:
    part = blocked.module.packed["item_vectors"]  # type: ignore[index]
    assert isinstance(part, PackedBlocks)
    assert part.blocks.probes < len(part.blocks.order)
    feed = made_requests(ITEMS, 200, np.random.default_rng(4))  # none of those that P was chosen with
    (found, _), (wanted, _), (exact, _) = ask(served(blocked), feed), ask(blocked.module, feed), ask(model, feed)
    assert np.mean([len(np.intersect1d(a, b)) / K for a, b in zip(found, wanted, strict=True)]) >= 0.99
    assert np.mean([len(np.intersect1d(a, b)) / K for a, b in zip(found, exact, strict=True)]) >= 0.97


def test_lists_stay_full_when_the_best_blocks_are_excluded(exported: Path, model: SpectralRecall) -> None:
    """Nine tenths of the catalogue, best first and each of them twice: what is left is never short of K."""
    feed = made_requests(ITEMS, 4, np.random.default_rng(5))
    names = ("history_rows", "history_ages", "history_values", "history_kinds", "user_features")
    best = model.scores(*(torch.from_numpy(feed[name]) for name in names)).topk(ITEMS * 9 // 10, dim=1).indices.numpy()
    feed["exclude_rows"] = np.concatenate([best, best[:, ::-1], np.full((4, 3), ITEMS)], 1)
    rows, scores = open_session(exported).run(None, feed)
    assert (scores > MASKED / 2).all()
    for found, gone in zip(rows, best, strict=True):
        assert len(set(found.tolist())) == K
        assert not np.isin(found, gone).any()
        assert ITEMS not in found


def test_fewer_items_than_asked_are_all_found_and_the_rest_is_masked(exported: Path) -> None:
    feed = made_requests(ITEMS, 2, np.random.default_rng(6))
    left = np.array([3, 700, 1_500, 2_998])
    feed["exclude_rows"] = np.tile(np.setdiff1d(np.arange(ITEMS), left), (2, 1))
    rows, scores = open_session(exported).run(None, feed)
    assert all(set(found[: len(left)].tolist()) == set(left.tolist()) for found in rows)
    assert np.isfinite(scores).all()
    assert (scores[:, len(left) :] <= MASKED / 2).all()


def test_empty_histories_get_the_most_popular(blocked: Candidate, exported: Path) -> None:
    feed = made_requests(ITEMS, 2, np.random.default_rng(7))
    feed["history_rows"][:] = ITEMS
    popular = blocked.module.column("empty_bias")[:-1].argsort(dim=0, descending=True, stable=True).numpy()  # type: ignore[operator]
    feed["exclude_rows"] = np.tile(popular[:30], (2, 1))
    assert np.array_equal(open_session(exported).run(None, feed)[0], np.tile(popular[30 : 30 + K], (2, 1)))


def test_answers_do_not_depend_on_the_batch(blocked: Candidate) -> None:
    graph, feed = served(blocked), made_requests(ITEMS, 5, np.random.default_rng(8))
    together, _ = ask(graph, feed)
    alone = [ask(graph, {name: array[at : at + 1] for name, array in feed.items()})[0][0] for at in range(5)]
    assert np.array_equal(together, np.stack(alone))


def test_blocks_come_back_from_disk(blocked: Candidate, tmp_path: Path) -> None:
    told = save_candidate(blocked, tmp_path)
    tensors = load_file(tmp_path / "recall_spectral.safetensors")
    again = served_form(restore(told["compressor"], tensors, told["facts"]), "onnxruntime")
    feed = made_requests(ITEMS, 6, np.random.default_rng(9))
    for found, wanted in zip(ask(again, feed), ask(served(blocked), feed), strict=True):
        assert np.array_equal(found, wanted)
    tensors["item_vectors.order"][0, 0] = tensors["item_vectors.order"][0, 1]
    with pytest.raises(ValueError, match="does not arrange"):
        restore(told["compressor"], tensors, told["facts"])


def test_other_flavours_and_exact_scores_go_without_blocks(blocked: Candidate) -> None:
    assert not served_form(blocked.module, "tensorrt").finds_best  # type: ignore[operator]
    assert not blocked.module.served("onnxruntime", exact=True).finds_best  # type: ignore[operator]


@pytest.mark.parametrize("kind", ["mf", "gat", "spectral", "ease", "mix"])
def test_small_catalogues_are_left_alone_with_a_reason(kind: str, tasks: dict[str, Task]) -> None:
    made = RecallCompressor().make(tasks[kind], "blocks-int8-columns")
    assert kind == "mix" or "blocks" in {one.layer for one in made.unchanged}
    assert "blocks" not in {one.name for one in made.passes}
    assert not any(one.name.startswith("blocks") for one in RecallCompressor().candidates(tasks[kind]))


@pytest.mark.parametrize("name", ["blocks-int4-columns", "blocks-rank75-tiers5421h3221", "blocks-rotated-int8-rows"])
def test_tables_of_every_kind_can_lie_in_blocks(name: str, model: SpectralRecall) -> None:
    made = arranged(model, name)
    assert made.passes[-1].name == "blocks"
    assert made.parent == name.removeprefix("blocks-")
    feed = made_requests(ITEMS, 50, np.random.default_rng(10))
    (found, scores), (wanted, best) = ask(served(made), feed), ask(made.module, feed)
    assert np.mean([len(np.intersect1d(a, b)) / K for a, b in zip(found, wanted, strict=True)]) >= 0.97
    same = found[:, 0] == wanted[:, 0]
    assert same.mean() > 0.9
    np.testing.assert_allclose(scores[same, 0], best[same, 0], rtol=1e-4)


def test_no_blocks_without_users_or_where_too_many_would_be_scanned(model: SpectralRecall) -> None:
    table = model.item_vectors, model.item_bias, model.empty_bias
    assert make_blocks(*table, torch.zeros(5, WIDTH), K, 0) is None
    assert make_blocks(*table, user_vectors(model), ITEMS // ROWS, 0) is None


def test_reaches_are_above_means_and_exact_for_blocks_of_one_vector() -> None:
    rng = torch.Generator().manual_seed(0)
    drawn, vectors = torch.randn(2, 8, generator=rng), torch.randn(5, 8, generator=rng)
    values = torch.cat([drawn.repeat_interleave(ROWS, 0), torch.zeros(1, 8)])
    order = torch.arange(2 * ROWS, dtype=torch.int32).view(2, ROWS)
    exact = vectors @ drawn.T
    torch.testing.assert_close(Reaches(values, order, torch.eye(8))(vectors), exact, atol=0.2, rtol=0.02)
    values[: 2 * ROWS] += torch.randn(2 * ROWS, 8, generator=rng)
    assert bool((Reaches(values, order, torch.eye(8))(vectors) > exact).all())


def test_whole_numbers_of_nothing_are_nothing() -> None:
    small, step = whole_numbers(torch.zeros(2, 4))
    assert bool((small == 0).all())
    assert bool((step > 0).all())

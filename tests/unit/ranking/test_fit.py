"""The whole ranker fit on real recall models: quality floors, odd data, determinism."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from core.artifacts import create_artifact
from core.dataset import Dataset, histories_of
from core.histories import pad
from core.metrics import hits, ndcg, truth_of
from core.progress import SILENT
from core.settings import Settings
from core.tensors import MASKED
from tests.unit.ranking.worlds import block_dataset, quick_settings
from training.models.ranker import load_ranker, save_ranker
from training.models.ranker_attention import view_history
from training.ranking.examples import build_examples, propose
from training.ranking.fit import RankerFit, RecallSet, fit_ranker, fit_recall_set
from training.ranking.tables import item_tables
from training.ranking.windows import label_windows
from training.requests import user_codes


def fit(dataset: Dataset, settings: Settings, seed: int = 0) -> tuple[RankerFit, RecallSet]:
    recall = fit_recall_set(dataset, dataset.events.of_splits(settings.train.fit), settings, seed, SILENT)
    return fit_ranker(dataset, settings, seed=seed, recall=recall), recall


@pytest.fixture(scope="module")
def blocks() -> tuple[Dataset, Settings, RankerFit, RecallSet]:
    dataset, settings = block_dataset(), quick_settings()
    return dataset, settings, *fit(dataset, settings)


def inputs_of(dataset: Dataset, recall: RecallSet, users: np.ndarray) -> tuple[torch.Tensor, ...]:
    past = dataset.events.of_splits(("train", "valid"))
    padded = pad(histories_of(past, dataset.n_users).select(users), dataset.n_items)
    history = (torch.from_numpy(part) for part in (padded.rows, padded.ages, padded.values))
    codes = user_codes(dataset, users)
    with torch.no_grad():
        candidates = [part for model in recall.models.values() for part in propose(model, padded, codes)]
    return *history, codes, *candidates


def test_pipeline_is_not_below_its_blend_on_the_test_split(
    blocks: tuple[Dataset, Settings, RankerFit, RecallSet],
) -> None:
    dataset, _, fitted, recall = blocks
    test = dataset.events.of_splits(("test",))
    users, place = np.unique(test.user_rows, return_inverse=True)
    truth = truth_of(place, test.item_rows, len(users))
    values = {}
    for strength in (0.0, float(fitted.model.strength)):
        model = fitted.model.with_tables(fitted.model.tables)
        model.strength.fill_(strength)
        with torch.no_grad():
            rows, scores, _, _ = model(*inputs_of(dataset, recall, users))
        lists = torch.where(scores > MASKED / 2, rows, -1).numpy()
        values[strength] = ndcg(hits(lists, truth), truth.sizes, 10)
    blend, pipeline = values[0.0].mean(), values[float(fitted.model.strength)].mean()
    assert blend > 0.15  # ten random items of sixty would give about .05
    assert pipeline > blend - 0.02


def test_ranker_orders_candidates_on_the_later_window(
    blocks: tuple[Dataset, Settings, RankerFit, RecallSet],
) -> None:
    metrics = blocks[2].metrics
    assert metrics["auc_ranker"] > 0.6
    assert metrics["ndcg@10_ranker"] >= metrics["ndcg@10_base"]
    assert metrics["ndcg@10_ranker"] > max(metrics["ndcg@10_mf"], metrics["ndcg@10_gat"]) - 0.02


def test_values_are_predicted_from_the_shipped_tables(
    blocks: tuple[Dataset, Settings, RankerFit, RecallSet],
) -> None:
    dataset, _, fitted, recall = blocks
    rows, _, values, codes, *_ = inputs_of(dataset, recall, np.arange(60))
    history = view_history(rows, torch.zeros_like(values), values, dataset.n_items)
    items = torch.arange(dataset.n_items).expand(60, -1)
    with torch.no_grad():
        predicted = fitted.model.tables.predicted_values(items, history, codes)
    own = (items % 3) == (torch.arange(60) % 3).unsqueeze(1)  # users like the items of their block
    assert float(predicted[own].mean()) > float(predicted[~own].mean()) + 0.5


def test_saved_ranker_answers_as_before(blocks: tuple[Dataset, Settings, RankerFit, RecallSet], tmp_path: Path) -> None:
    dataset, _, fitted, recall = blocks
    with create_artifact(tmp_path, "ranker", settings={}, seed=0) as draft:
        draft.tensors |= save_ranker(fitted.model, draft.path)
    inputs = inputs_of(dataset, recall, np.arange(20))
    with torch.no_grad():
        for one, two in zip(fitted.model(*inputs), load_ranker(draft.finished())(*inputs), strict=True):
            assert torch.equal(one, two)


def test_data_without_values_predicts_none() -> None:
    fitted, _ = fit(block_dataset(with_values=False), quick_settings("ranker.epochs=1"))
    assert fitted.model.tables.rating is None
    assert float(fitted.model.value_weight) == 0.0


def test_metrics_are_plain_json(blocks: tuple[Dataset, Settings, RankerFit, RecallSet]) -> None:
    assert json.loads(json.dumps(blocks[2].metrics)) == blocks[2].metrics


def test_reasons_are_of_the_recommended_block(blocks: tuple[Dataset, Settings, RankerFit, RecallSet]) -> None:
    dataset, _, fitted, recall = blocks
    users = np.arange(60)
    with torch.no_grad():
        rows, _, reasons, weights = fitted.model(*inputs_of(dataset, recall, users))
    first, known = rows[:, 0] % 3, weights[:, 0, 0] > 0
    same = (reasons[known, 0, 0] % 3 == first[known]).float().mean()
    assert float(same) > 0.8


def test_shipped_tables_are_those_of_the_shipped_recall(
    blocks: tuple[Dataset, Settings, RankerFit, RecallSet],
) -> None:
    dataset, settings, fitted, recall = blocks
    events = dataset.events.of_splits(settings.train.fit)
    wanted = item_tables(dataset, events, recall.item_vectors, settings.ranker.content_dimension)
    assert torch.equal(fitted.model.tables.keys, wanted.keys)
    assert torch.equal(fitted.model.tables.statistics, wanted.statistics)


def test_fit_never_looks_at_the_test_split(blocks: tuple[Dataset, Settings, RankerFit, RecallSet]) -> None:
    dataset, settings, fitted, _ = blocks
    kept = dataset.events.splits < 2
    other = Dataset(
        dataset.events.where(kept), dataset.users, dataset.items, dataset.titles,
        dataset.user_features, dataset.item_features, dataset.has_times, dataset.has_values,
    )  # fmt: skip
    again, _ = fit(other, settings)
    assert again.metrics == fitted.metrics
    state, wanted = again.model.state_dict(), fitted.model.state_dict()
    assert all(torch.equal(state[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("missing", ["with_times", "with_values", "with_attributes"])
def test_fit_does_without(missing: str) -> None:
    dataset = block_dataset(**{missing: False})
    fitted, recall = fit(dataset, quick_settings("ranker.epochs=1"))
    with torch.no_grad():
        rows, scores, _, _ = fitted.model(*inputs_of(dataset, recall, np.arange(20)))
    assert bool(torch.isfinite(scores).all())
    assert bool((rows[:, 0] < dataset.n_items).all())


def test_fit_returns_fewer_items_on_a_tiny_catalogue() -> None:
    dataset = block_dataset(n_users=60, n_items=30, per_user=8)
    fitted, recall = fit(dataset, quick_settings("recall.candidates=200", "serving.max_k=100", "ranker.epochs=1"))
    with torch.no_grad():
        rows, _, _, _ = fitted.model(*inputs_of(dataset, recall, np.arange(5)))
    assert fitted.model.shape.returned == min(recall.candidates, dataset.n_items) == rows.shape[1]


def test_fit_for_liked_events_uses_only_those_as_hits() -> None:
    dataset = block_dataset()
    fitted, _ = fit(dataset, quick_settings("ranker.target=liked", "ranker.epochs=1"))
    everything, _ = fit(dataset, quick_settings("ranker.epochs=1"))
    assert fitted.metrics["users"] < everything.metrics["users"]


def test_examples_hold_recalls_own_candidates_and_true_labels() -> None:
    dataset, settings = block_dataset(), quick_settings()
    window, _ = label_windows(dataset.events, count=2, has_times=True, share=0.1, rng=np.random.default_rng(0))
    recall = fit_recall_set(dataset, window.past, settings, 0, SILENT)
    tables = item_tables(dataset, window.past, recall.item_vectors, 16)
    relevant = np.ones(len(window.future), dtype=bool)
    examples = build_examples(dataset, window, recall, tables, relevant, max_users=10_000, rng=np.random.default_rng(0))
    assert len(examples) == len(np.unique(window.future.user_rows))
    found, at = 0, 0
    for batch in examples.batches:
        for rows, valid, labels in zip(batch.rows, batch.valid, batch.labels, strict=True):
            truth = examples.truth.item_rows[examples.truth.starts[at] : examples.truth.starts[at + 1]]
            wanted = torch.isin(rows, torch.from_numpy(truth)) & valid
            assert torch.equal(labels > 0, wanted)
            found, at = found + int(wanted.sum()), at + 1
    assert found > 0


def test_examples_are_capped_at_max_users() -> None:
    dataset, settings = block_dataset(), quick_settings()
    window, _ = label_windows(dataset.events, count=2, has_times=True, share=0.1, rng=np.random.default_rng(0))
    recall = fit_recall_set(dataset, window.past, settings, 0, SILENT)
    tables = item_tables(dataset, window.past, recall.item_vectors, 16)
    relevant = np.ones(len(window.future), dtype=bool)
    examples = build_examples(dataset, window, recall, tables, relevant, max_users=7, rng=np.random.default_rng(0))
    assert len(examples) == 7


def test_even_blend_is_shipped_when_nobody_returns() -> None:
    dataset, settings = block_dataset(), quick_settings()
    _, once = np.unique(dataset.events.user_rows, return_index=True)
    lonely = replace(dataset, events=dataset.events.where(np.sort(once)))
    fitted, _ = fit(lonely, settings)
    assert fitted.model.blend.tolist() == [1.0, 1.0]
    assert float(fitted.model.strength) == 0.0
    assert fitted.metrics["users"] == 0

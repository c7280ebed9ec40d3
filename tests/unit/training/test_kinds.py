"""Kinds of events: models that know them beat blind ones where clicks are noise; nothing changes with one kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from core.dataset import Dataset
from core.errors import SettingsError, TrainingError
from core.histories import pad
from core.kinds import kind_weights
from core.progress import SILENT
from core.settings import load_settings
from core.tensors import MASKED, recall_step
from export.onnx_graph import export_graph
from tests.suites.kinds_data import PURCHASE, blind, noisy_clicks
from tests.suites.recall_data import block_dataset
from tests.suites.recall_suite import FIT, as_tensors, ndcg, requests
from training.models.event_weights import EventWeighting
from training.models.fitters import MEMBERS
from training.models.gat_model import GatRecall
from training.models.item_graph import normalised_adjacency
from training.models.recall import RecallModel, restore_model, save_model

SHORT = ("gat.dimension=8", "gat.batch_users=32", "mf.dimension=8", "spectral.dimension=8")
PURCHASES_COUNT = ("events.kind_weights.purchase=10",)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return noisy_clicks()


def train(name: str, dataset: Dataset, *overrides: str) -> RecallModel:
    settings = load_settings((), (*SHORT, *overrides))
    return MEMBERS[name](dataset, dataset.events.of_splits(FIT), settings, seed=0, progress=SILENT)


@pytest.mark.parametrize("name", sorted(MEMBERS))
def test_weighted_kinds_beat_the_blind_model_when_clicks_are_noise(name: str, dataset: Dataset) -> None:
    knowing, ignorant = train(name, dataset, *PURCHASES_COUNT), train(name, blind(dataset))
    assert ndcg(dataset, knowing) > ndcg(blind(dataset), ignorant) + 0.05


def test_attention_learns_which_kind_matters_without_being_told(dataset: Dataset) -> None:
    model = train("gat", dataset, 'events.target_kinds=["purchase"]')
    assert isinstance(model, GatRecall)
    assert model.scalars.kind[PURCHASE, 0] > model.scalars.kind[1, 0] + 0.5
    assert ndcg(dataset, model) > ndcg(blind(dataset), train("gat", blind(dataset))) + 0.05


def test_unknown_kind_gets_the_mean_logit_when_training_never_met_it(dataset: Dataset) -> None:
    model = train("gat", dataset, *PURCHASES_COUNT)
    assert isinstance(model, GatRecall)
    shares = np.bincount(dataset.events.of_splits(FIT).kinds, minlength=3) / len(dataset.events.of_splits(FIT))
    expected = float(shares[1:] @ model.scalars.kind[1:, 0].numpy())
    assert float(model.scalars.kind[0, 0]) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", sorted(MEMBERS))
def test_one_kind_alone_changes_nothing(name: str) -> None:
    plain = block_dataset()
    weighted = train(name, plain, "events.kind_weights.unknown=1.0").state_dict()
    assert all(torch.equal(tensor, weighted[key]) for key, tensor in train(name, plain).state_dict().items())


@pytest.mark.parametrize("name", ["mf", "gat"])
def test_saved_and_exported_model_weighs_kinds_alike(name: str, dataset: Dataset, tmp_path: Path) -> None:
    model = train(name, dataset, *PURCHASES_COUNT)
    restored = restore_model(tmp_path, save_model(model, tmp_path))
    spec = recall_step(name)
    inputs = requests(dataset, 3, 64)
    feeds = dict(zip([tensor.name for tensor in spec.inputs], inputs, strict=True))
    path = tmp_path / "graph.onnx"
    export_graph(restored, spec, feeds, path, opset=20, max_batch=64)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    rows, scores = session.run(None, {key: value.numpy() for key, value in feeds.items()})
    expected_rows, expected_scores = model(*inputs)
    np.testing.assert_allclose(scores, expected_scores.numpy(), rtol=1e-4, atol=1e-4)
    real = expected_scores.numpy() > MASKED
    assert (rows == expected_rows.numpy())[real].mean() > 0.99
    other = (*inputs[:3], torch.full_like(inputs[3], 1), *inputs[4:])
    assert not torch.allclose(model(*other)[1], expected_scores)


def test_weights_of_kinds_agree_in_training_and_serving(dataset: Dataset) -> None:
    weighting = EventWeighting(0.0, 0.1, 30.0, 7.0, 10.0, 0.3, kinds=(1.0, 0.5, 4.0))
    histories = dataset.histories(FIT)
    rows, ages, values, kinds, *_ = as_tensors(pad(histories, dataset.n_items))
    served = weighting.of_tensors(ages, values, kinds)[rows != dataset.n_items]
    np.testing.assert_allclose(served, weighting.of_histories(histories), rtol=1e-5)


def test_edges_of_a_heavier_kind_weigh_more_in_the_graph(dataset: Dataset) -> None:
    histories = dataset.histories(FIT)
    weights = normalised_adjacency(histories, dataset.n_items, np.array([1.0, 1.0, 4.0])).data
    bought = histories.kinds == PURCHASE
    assert weights[bought].mean() > 2 * weights[~bought].mean()


def test_kind_that_the_data_lacks_is_refused(dataset: Dataset) -> None:
    with pytest.raises(SettingsError, match=r"no event of this kind[\s\S]*click \| purchase \| unknown[\s\S]*order"):
        train("mf", dataset, "events.kind_weights.order=2")
    with pytest.raises(SettingsError, match=r"events.target_kinds"):
        train("gat", dataset, 'events.target_kinds=["order"]')


def test_target_kind_without_events_is_refused(dataset: Dataset) -> None:
    with pytest.raises(TrainingError, match=r"nothing to predict[\s\S]*unknown"):
        train("gat", dataset, 'events.target_kinds=["unknown"]')


def test_unnamed_kinds_count_one() -> None:
    assert kind_weights(("", "click", "purchase"), {"purchase": 5, "unknown": 2}).tolist() == [2, 1, 5]

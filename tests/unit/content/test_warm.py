"""Items without events are found by those who like what they are made of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from core.dataset import Dataset, histories_of
from core.settings import Settings, load_settings
from core.tensors import MASKED
from export.onnx_graph import export_graph
from export.parity import run_torch
from tests.suites.recall_suite import requests
from tests.unit.content.worlds import COLD, block_of, content_dataset, home_blocks, without_cold
from training.content.lessons import user_vectors
from training.content.warm import Warmed, warm_cold_items
from training.models.ease import fit_ease
from training.models.fitters import FITTERS
from training.models.recall_base import UNSEEN, RecallModel

WARMABLE = ("mf", "gat", "spectral")


def settings_with(*overrides: str) -> Settings:
    return load_settings((), ("content.enabled=true", "content.exposure=100", "content.steps=20", *overrides))


def fitted(dataset: Dataset, name: str = "mf") -> RecallModel:
    return FITTERS[name](dataset, without_cold(dataset), Settings(), seed=0, progress=_silent())


def _silent():  # type: ignore[no-untyped-def]
    from core.progress import SILENT

    return SILENT


def warm(dataset: Dataset, model: RecallModel, *overrides: str, seed: int = 0) -> Warmed:
    return warm_cold_items(model, dataset, without_cold(dataset), settings_with(*overrides), seed=seed)


def right_block_share(dataset: Dataset, model: RecallModel) -> float:
    """Share of the three best cold items of each user that lie in the user's own block; 1/4 by chance."""
    events = without_cold(dataset)
    vectors = user_vectors(model, histories_of(events, dataset.n_users))
    scores = vectors @ model.item_vectors[COLD].T + model.item_bias[COLD]
    best = COLD[scores.topk(3, dim=1).indices.numpy()]
    return float((block_of(best) == home_blocks(events, dataset.n_users)[:, None]).mean())


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return content_dataset()


@pytest.fixture(scope="module")
def model(dataset: Dataset) -> RecallModel:
    return fitted(dataset)


@pytest.mark.parametrize("name", WARMABLE)
def test_cold_items_go_to_the_users_of_their_block(dataset: Dataset, name: str) -> None:
    assert right_block_share(dataset, warm(dataset, fitted(dataset, name)).model) > 0.9


@pytest.mark.parametrize("modality", ["image", "texts"])
def test_dense_modality_alone_finds_the_block(modality: str) -> None:
    dataset = content_dataset(codes=False, **{modality: True})
    assert right_block_share(dataset, warm(dataset, fitted(dataset), "content.text=ngrams").model) > 0.9


def test_missing_modalities_leave_the_others(dataset: Dataset) -> None:
    full = content_dataset(image=True)
    content, features = full.item_content, full.item_features
    assert content is not None
    present = content.blocks["image"].present.copy()
    present[COLD[::2]] = False
    present[::3] = False
    codes = features.codes.copy()
    codes[COLD[1::2]] = 0  # every cold item has lost one of the two
    image = replace(content.blocks["image"], present=present)
    gappy = replace(
        full, item_content=replace(content, blocks={"image": image}), item_features=replace(features, codes=codes)
    )
    present[COLD[1::2]] = True
    assert right_block_share(gappy, warm(gappy, fitted(gappy)).model) > 0.85


def test_items_without_content_stay_last(dataset: Dataset, model: RecallModel) -> None:
    warmed = warm(dataset, model).model
    assert (warmed.item_bias[-4:-1] <= UNSEEN).all()
    assert warmed.item_bias[-1] <= MASKED
    assert not warmed.item_vectors[-4:].any()


def test_given_model_and_items_with_many_events_are_untouched(dataset: Dataset, model: RecallModel) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    warmed = warm(dataset, model).model
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    counts = np.bincount(without_cold(dataset).item_rows, minlength=dataset.n_items)
    assert torch.equal(warmed.item_vectors[:-1][counts >= 20], model.item_vectors[:-1][counts >= 20])
    assert torch.equal(warmed.empty_bias, model.empty_bias)


def test_same_seed_gives_the_same_vectors(dataset: Dataset, model: RecallModel) -> None:
    one, two = (warm(dataset, model).model.state_dict() for _ in range(2))
    assert all(torch.equal(tensor, two[name]) for name, tensor in one.items())


def test_cold_item_in_a_history_speaks_for_its_block(dataset: Dataset, model: RecallModel) -> None:
    warmed = warm(dataset, model).model
    rows = torch.full((1, 16), warmed.n_items)
    rows[0, 0] = int(COLD[0])
    zeros = torch.zeros(1, 16)
    scores = (warmed.user_vectors(rows, zeros, zeros, rows * 0) @ warmed.item_vectors.T)[0, :-4].numpy()
    blocks = block_of(np.arange(len(scores)))
    assert np.argmax(np.bincount(blocks, scores)) == block_of(COLD[:1])[0]


def test_content_that_tells_nothing_changes_nothing(dataset: Dataset, model: RecallModel) -> None:
    rng = np.random.default_rng(1)
    codes = dataset.item_features.codes.copy()
    codes[:-3, 0] = rng.integers(1, 5, len(codes) - 3)
    noise = replace(dataset, item_features=replace(dataset.item_features, codes=codes))
    found = warm(noise, model)
    assert found.model is model
    assert not found.metrics["helps"]


def test_exposure_bounds_the_places_that_cold_items_take(dataset: Dataset, model: RecallModel) -> None:
    share = {}
    for exposure in (0.0, 0.1, 100.0):
        warmed = warm(dataset, model, f"content.exposure={exposure}").model
        inputs = requests(dataset, 100, 64)
        rows, _ = warmed(*inputs)
        share[exposure] = float(np.isin(rows[:, :10].numpy(), COLD).mean())
    assert share[0.0] == 0
    assert 0 < share[0.1] <= 1.5 * 0.1 * len(COLD) / dataset.n_items < share[100.0]


def test_models_whose_scores_are_no_such_products_are_left_alone(dataset: Dataset) -> None:
    ease = fit_ease(dataset, without_cold(dataset), Settings(), seed=0)
    assert warm(dataset, ease).model is ease


def test_warmed_graph_agrees_with_torch(dataset: Dataset, model: RecallModel, tmp_path: Path) -> None:
    from core.tensors import recall_step

    spec = recall_step("mf")
    warmed = warm(dataset, model).model
    inputs = dict(zip([tensor.name for tensor in spec.inputs], requests(dataset, 7, 64), strict=True))
    path = tmp_path / "recall_mf.onnx"
    export_graph(warmed, spec, inputs, path, opset=20, max_batch=64)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    rows, scores = session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
    expected = run_torch(warmed, spec, {name: tensor.numpy() for name, tensor in inputs.items()})
    np.testing.assert_allclose(scores, expected[1], rtol=1e-4, atol=1e-4)
    assert np.isin(rows[:, :10], COLD).any()

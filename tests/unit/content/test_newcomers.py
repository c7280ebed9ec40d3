"""Users without a history get what users with their attributes like."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from core.dataset import Dataset
from core.features import FeatureColumn, FeatureTable
from core.progress import SILENT
from core.sections import ContentSettings
from core.settings import Settings
from core.tensors import recall_step
from export.onnx_graph import export_graph
from tests.suites.recall_data import block_dataset
from tests.suites.recall_suite import Inputs, empty_requests
from tests.unit.content.worlds import BLOCKS, block_of, home_blocks
from training.content.newcomers import fit_newcomers
from training.models.fitters import FITTERS
from training.models.recall import restore_model, save_model
from training.models.recall_base import RecallModel

SPEC = recall_step("mf")


def attribute_dataset(*, telling: bool = True) -> Dataset:
    """Users whose first attribute names their block, or is drawn at random."""
    dataset = block_dataset(n_users=300)
    blocks = home_blocks(dataset.events.where(dataset.events.item_rows < dataset.n_items - 3), dataset.n_users)
    rng = np.random.default_rng(7)
    codes = np.stack([1 + (blocks if telling else rng.integers(BLOCKS, size=300)), rng.integers(0, 3, 300)], 1)
    columns = (FeatureColumn("club", "category", BLOCKS + 1, 1), FeatureColumn("noise", "category", 3, 1))
    return replace(dataset, user_features=FeatureTable(columns, codes.astype(np.int32)))


def fitted(dataset: Dataset, name: str) -> RecallModel:
    events = dataset.events.of_splits(("train",))
    model = FITTERS[name](dataset, events, Settings(), seed=0, progress=SILENT)
    return fit_newcomers(model, dataset, events, ContentSettings(enabled=True), seed=0).model


def strangers(dataset: Dataset) -> Inputs:
    """One user without a history per block, and one of whom nothing is known."""
    *inputs, _ = empty_requests(dataset, BLOCKS + 1)
    codes = torch.zeros(BLOCKS + 1, 2, dtype=torch.int64)
    codes[:BLOCKS, 0] = torch.arange(1, BLOCKS + 1)
    return (*inputs, codes)  # type: ignore[return-value]


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return attribute_dataset()


@pytest.fixture(scope="module")
def model(dataset: Dataset) -> RecallModel:
    return fitted(dataset, "mf")


@pytest.mark.parametrize("name", ["mf", "gat"])
def test_attributes_find_the_block(dataset: Dataset, name: str) -> None:
    rows, _ = fitted(dataset, name)(*strangers(dataset))
    own = block_of(rows[:BLOCKS, :10].numpy()) == np.arange(BLOCKS)[:, None]
    assert own.mean() > 0.9


def test_user_of_whom_nothing_is_known_gets_what_is_popular(dataset: Dataset, model: RecallModel) -> None:
    rows, _ = model(*strangers(dataset))
    assert torch.equal(rows[-1], model.empty_bias.topk(model.candidates).indices)


def test_attributes_do_not_touch_users_with_a_history(dataset: Dataset, model: RecallModel) -> None:
    rows, ages, values, kinds, exclude, codes = strangers(dataset)
    rows = rows.clone()
    rows[:, 0] = 0
    lists, _ = model(rows, ages, values, kinds, exclude, codes)
    assert (lists == lists[-1]).all()


def test_attributes_that_tell_nothing_are_not_used() -> None:
    assert fitted(attribute_dataset(telling=False), "mf").newcomers is None


def test_saved_model_and_its_graph_answer_alike(dataset: Dataset, model: RecallModel, tmp_path: Path) -> None:
    facts = save_model(model, tmp_path)
    inputs = strangers(dataset)
    for one, two in zip(model(*inputs), restore_model(tmp_path, facts)(*inputs), strict=True):
        assert torch.equal(one, two)
    feeds = dict(zip([tensor.name for tensor in SPEC.inputs], inputs, strict=True))
    export_graph(model, SPEC, feeds, tmp_path / "recall_mf.onnx", opset=20, max_batch=64)
    session = onnxruntime.InferenceSession(str(tmp_path / "recall_mf.onnx"), providers=["CPUExecutionProvider"])
    _, scores = session.run(None, {name: tensor.numpy() for name, tensor in feeds.items()})
    np.testing.assert_allclose(scores, model(*inputs)[1], rtol=1e-4, atol=1e-4)

"""Several heads, bags of networks, and attention that must not look at times or values."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from core.dataset import Dataset
from core.errors import SettingsError
from core.histories import pad
from core.settings import load_settings
from core.tensors import MASKED, recall_step
from export.onnx_graph import export_graph
from tests.suites.recall_data import block_dataset
from tests.suites.recall_suite import FIT, as_tensors, ndcg, popularity_ndcg, requests
from training.models.gat import fit_gat
from training.models.gat_model import GatRecall
from training.models.recall import restore_model, save_model


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return block_dataset()


def train(dataset: Dataset, *overrides: str) -> GatRecall:
    settings = load_settings((), ("gat.dimension=8", "gat.batch_users=32", *overrides))
    return fit_gat(dataset, dataset.events.of_splits(FIT), settings, seed=0)


@pytest.fixture(scope="module")
def wide(dataset: Dataset) -> GatRecall:
    """Two networks of two heads."""
    return train(dataset, "gat.heads=2", "gat.bag=2")


def test_heads_learn_scalars_of_their_own(dataset: Dataset, wide: GatRecall) -> None:
    assert wide.scalars.item.shape[1] == 4
    assert (wide.scalars.item[:, 0] - wide.scalars.item[:, 1]).abs().max() > 0.01
    assert ndcg(dataset, wide) > 1.5 * popularity_ndcg(dataset)


def test_bag_scores_are_the_mean_of_its_networks(dataset: Dataset, wide: GatRecall) -> None:
    assert wide.dimension == 16
    inputs = as_tensors(pad(dataset.histories(FIT), dataset.n_items))[:4]
    together = wide.user_vectors(*inputs) @ wide.item_vectors.T
    halves = []
    for part in (slice(0, 2), slice(2, 4)):
        state = wide.state_dict()
        columns = slice(part.start * 4, part.stop * 4)
        for name in ("history_vectors", "item_vectors"):
            state[name] = state[name][:, columns]
        heads = {name: tensor[:, part] for name, tensor in state.items() if name.startswith("scalars.")}
        state |= {**heads, "length_scale": state["length_scale"][:, part]}
        alone = GatRecall.from_tensors(state, {"candidates": 10})
        halves.append(alone.user_vectors(*inputs) @ (2 * alone.item_vectors.T))
    torch.testing.assert_close(together, (halves[0] + halves[1]) / 2, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(halves[0], halves[1])


def test_exported_graph_of_many_heads_answers_like_the_model(dataset: Dataset, wide: GatRecall, tmp_path: Path) -> None:
    model = restore_model(tmp_path, save_model(wide, tmp_path))
    spec = recall_step("gat")
    feeds = dict(zip([tensor.name for tensor in spec.inputs], requests(dataset, 5, 64), strict=True))
    path = tmp_path / "gat.onnx"
    export_graph(model, spec, feeds, path, opset=20, max_batch=64)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    rows, scores = session.run(None, {name: tensor.numpy() for name, tensor in feeds.items()})
    expected_rows, expected_scores = wide(*feeds.values())
    np.testing.assert_allclose(scores, expected_scores.numpy(), rtol=1e-4, atol=1e-4)
    real = expected_scores.numpy() > MASKED
    assert (rows == expected_rows.numpy())[real].mean() > 0.99


def test_heads_that_do_not_divide_the_dimension_are_refused(dataset: Dataset) -> None:
    with pytest.raises(SettingsError, match=r"3 heads, dimension 8"):
        train(dataset, "gat.heads=3")


def test_answers_ignore_times_and_values_when_settings_say_so(dataset: Dataset) -> None:
    model = train(dataset, "gat.use_times=false", "gat.use_values=false")
    rows, ages, values, *rest = requests(dataset, 7, 64)
    torch.testing.assert_close(model(rows, ages * 3, values - 2, *rest), model(rows, ages, values, *rest))
    events = dataset.events
    blind = replace(dataset, events=replace(events, values=np.zeros_like(events.values)))
    other = train(blind, "gat.use_times=false", "gat.use_values=false")
    assert torch.equal(other.item_vectors, model.item_vectors)

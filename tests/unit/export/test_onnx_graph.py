"""Export and parity on a small recall-shaped module, and on broken copies of it that must be caught."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from core.errors import ExportError
from core.tensors import MASKED, recall_step
from export.onnx_graph import check_graph, export_graph, fixed_axes
from export.parity import Feeds, check_parity

RECALL_MF = recall_step("mf")
N_ITEMS, D, K = 30, 4, 5


class TinyRecall(nn.Module):
    """Mean of the history's vectors against all items: the smallest thing with the recall signature."""

    def __init__(self) -> None:
        super().__init__()
        table = torch.randn(N_ITEMS + 1, D, generator=torch.Generator().manual_seed(0))
        table[-1] = 0
        self.table = nn.Parameter(table)

    def forward(
        self,
        rows: torch.Tensor,
        ages: torch.Tensor,
        values: torch.Tensor,
        kinds: torch.Tensor,
        exclude: torch.Tensor,
        user_features: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        weights = torch.exp(-ages / 30) * (1 + 0.1 * values)
        user = (self.table[rows] * weights[:, :, None]).sum(1)  # (B, D)
        scores = user @ self.table.T  # (B, I + 1)
        scores = scores.scatter(1, exclude, MASKED)
        top = torch.topk(scores[:, :N_ITEMS], K)
        return top.indices, top.values


def feed(batch: int, length: int = 16) -> Feeds:
    rng = np.random.default_rng(batch)
    rows = rng.integers(0, N_ITEMS, size=(batch, length))
    return {
        "history_rows": rows,
        "history_ages": rng.uniform(0, 50, size=(batch, length)).astype(np.float32),
        "history_values": rng.normal(size=(batch, length)).astype(np.float32),
        "history_kinds": rng.integers(0, 3, size=(batch, length)),
        "user_features": rng.integers(0, 3, size=(batch, 2)),
        "exclude_rows": np.concatenate([rows, np.full((batch, length), N_ITEMS)], axis=1),
    }


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("graphs") / "tiny.onnx"
    example = {name: torch.from_numpy(array) for name, array in feed(2).items()}
    export_graph(TinyRecall(), RECALL_MF, example, path, opset=20, max_batch=64)
    return path


def test_export_keeps_names_axes_and_opset(exported: Path) -> None:
    check_graph(exported, RECALL_MF, 20)
    assert fixed_axes(exported, RECALL_MF) == {"K": K, "F": 2}


@pytest.mark.parametrize("length", [16, 64])
def test_parity_holds_at_every_batch_size(exported: Path, length: int) -> None:
    results = check_parity(TinyRecall(), RECALL_MF, exported, [feed(batch, length) for batch in (1, 2, 7, 64)])
    assert {result.batch for result in results} == {1, 2, 7, 64}
    assert all(result.passed for result in results)


def test_parity_catches_a_changed_weight(exported: Path, tmp_path: Path) -> None:
    model = onnx.load(exported)
    table = next(t for t in model.graph.initializer if t.dims == [N_ITEMS + 1, D] or t.dims == [D, N_ITEMS + 1])
    values = numpy_helper.to_array(table).copy()
    values[0] *= 1.05
    table.CopyFrom(numpy_helper.from_array(values, table.name))
    broken = tmp_path / "broken.onnx"
    onnx.save(model, broken)
    with pytest.raises(ExportError, match="parity failed"):
        check_parity(TinyRecall(), RECALL_MF, broken, [feed(7)])


def test_check_names_the_axis_when_batch_is_fixed(exported: Path, tmp_path: Path) -> None:
    model = onnx.load(exported)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    broken = tmp_path / "fixed.onnx"
    onnx.save(model, broken)
    with pytest.raises(ExportError, match="batch axis is fixed"):
        check_graph(broken, RECALL_MF, 20)


def test_check_refuses_another_opset(exported: Path) -> None:
    with pytest.raises(ExportError, match="wrong opset"):
        check_graph(exported, RECALL_MF, 18)


def test_export_explains_a_module_that_cannot_be_traced(tmp_path: Path) -> None:
    class Branching(TinyRecall):
        def forward(self, rows, ages, values, exclude):  # type: ignore[no-untyped-def]
            if values.sum() > 0:
                return super().forward(rows, ages, values, exclude)
            return super().forward(rows, ages, -values, exclude)

    example = {name: torch.from_numpy(array) for name, array in feed(2).items()}
    with pytest.raises(ExportError, match="recall_mf does not export"):
        export_graph(Branching(), RECALL_MF, example, tmp_path / "no.onnx", opset=20, max_batch=64)

"""What is exported computes what the torch module computes, in every flavour's form."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from compression.candidate import served_form
from compression.forms import CodedTable, IntegerTable, PortableTable, UnpackedTable, pack_words
from compression.packed import PackedTiers
from compression.quantize import Axis, Quantized, quantize
from compression.recall import RecallCompressor
from compression.task import Task
from compression.tiers import popularity_order, quantize_tiers
from core.tensors import recall_step
from export.onnx_graph import export_graph
from export.parity import check_parity
from export.stage import sample_requests
from export.tensorrt.gate import check_graph
from export.tensorrt.profiles import step_profile

GENERATOR = torch.Generator().manual_seed(0)
TABLE = torch.cat([torch.randn(300, 12, generator=GENERATOR), torch.zeros(1, 12)])


class Both(nn.Module):
    """Looks rows up and scans."""

    def __init__(self, table: nn.Module) -> None:
        super().__init__()
        self.table = table

    def forward(self, rows: torch.Tensor, vectors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.table(rows), self.table.scan(vectors)


def run(table: nn.Module, path: Path, rows: torch.Tensor, vectors: torch.Tensor) -> list[np.ndarray]:
    torch.onnx.export(Both(table), (rows, vectors), str(path), dynamo=True, opset_version=20, verbose=False)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]
    return session.run(None, dict(zip(names, (rows.numpy(), vectors.numpy()), strict=True)))


def quantized(bits: int, axis: str) -> Quantized:
    if axis == "tiers":
        order = popularity_order(-torch.arange(301).float())
        return quantize_tiers(TABLE, order, (6, 5, 4, 3), 0.5).quantized()
    kinds: dict[str, Axis] = {"rows": "rows", "columns": "columns"}
    return quantize(TABLE, bits, kinds[axis])


@pytest.mark.parametrize(("bits", "axis"), [(8, "rows"), (8, "columns"), (4, "rows"), (4, "columns"), (8, "tiers")])
@pytest.mark.parametrize("form", [UnpackedTable, IntegerTable, PortableTable])
def test_forms_agree_with_the_dequantized_table(bits: int, axis: str, form: type[CodedTable], tmp_path: Path) -> None:
    table = quantized(bits, axis)
    rows = torch.tensor([[0, 5, 300], [7, 299, 300]])
    vectors = torch.randn(2, 12, generator=GENERATOR)
    looked_up, scanned = run(form(table), tmp_path / "form.onnx", rows, vectors)
    wanted = table.values()
    np.testing.assert_allclose(looked_up, wanted[rows].numpy(), atol=1e-4)
    exact = (vectors @ wanted.T).numpy()
    slack = 0.05 * np.abs(exact).max() if form is IntegerTable else 1e-3
    np.testing.assert_allclose(scanned, exact, atol=slack)


def test_large_catalogues_are_scanned_as_integers_and_scored_again(
    tasks: dict[str, Task], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The threshold alone decides, so that a small one shows the large form."""
    monkeypatch.setattr("compression.packed.INTEGER_FROM_CELLS", 100)
    task = tasks["spectral"]
    module, spec, path = RecallCompressor().make(task, "rank75-int8-columns").module, recall_step("spectral"), tmp_path
    served = served_form(module, "onnxruntime")
    assert isinstance(served.forms["item_vectors"], IntegerTable)
    feeds = [sample_requests(task.dataset, task.settings, batch) for batch in (1, 2, 7)]
    feeds = [{tensor.name: feed[tensor.name] for tensor in spec.inputs} for feed in feeds]
    example = {name: torch.from_numpy(array) for name, array in feeds[1].items()}
    export_graph(served, spec, example, path / "model.onnx", opset=20, max_batch=8)
    assert all(one.passed for one in check_parity(module, spec, path / "model.onnx", feeds))


def test_words_hold_codes_lowest_first() -> None:
    codes = torch.tensor([[1, 2, 3, 4, 5]], dtype=torch.uint8)
    words = pack_words(codes, 8).long() + 2**31
    assert words.tolist() == [[1 + (2 << 8) + (3 << 16) + (4 << 24), 5]]


@pytest.mark.parametrize("flavour", ["onnxruntime", "tensorrt"])
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("mf", "rank50-tiers5410h3210"),
        ("mf", "rotated-tiers5443h5443"),
        ("spectral", "rotated-tiers4332h4332"),
        ("mix", "rank75-int4-columns"),
    ],
)
def test_exported_models_agree_with_torch(kind: str, name: str, flavour, tasks: dict[str, Task], tmp_path) -> None:
    task = tasks[kind]
    module, spec, path = RecallCompressor().make(task, name).module, recall_step(kind), tmp_path / "model.onnx"
    feeds = [sample_requests(task.dataset, task.settings, batch) for batch in (1, 2, 7)]
    feeds = [{tensor.name: feed[tensor.name] for tensor in spec.inputs} for feed in feeds]
    example = {name: torch.from_numpy(array) for name, array in feeds[1].items()}
    export_graph(served_form(module, flavour), spec, example, path, opset=20, max_batch=8)
    results = check_parity(module, spec, path, feeds, fused=flavour == "onnxruntime")
    assert all(one.passed for one in results)


@pytest.mark.parametrize("kind", ["mf", "spectral"])
@pytest.mark.usefixtures("rtx")
def test_tensorrt_compiles_rotated_and_tied_tables(kind: str, tasks: dict[str, Task], tmp_path) -> None:
    task, spec, path = tasks[kind], recall_step(kind), tmp_path / "model.onnx"
    module = RecallCompressor().make(task, "rotated-tiers4433h4433").module
    feed = sample_requests(task.dataset, task.settings, 2)
    example = {tensor.name: torch.from_numpy(feed[tensor.name]) for tensor in spec.inputs}
    export_graph(served_form(module, "tensorrt"), spec, example, path, opset=20, max_batch=8)
    sizes = {"K": task.settings.recall.candidates, "F": example["user_features"].shape[1]}
    verdict = check_graph(path, step_profile(spec, sizes, task.settings.tensorrt, 8))
    assert verdict.verdict == "accepted", verdict


def test_file_of_a_packed_graph_holds_no_float_table(tasks: dict[str, Task], tmp_path: Path) -> None:
    import onnx

    task = tasks["gat"]
    module = RecallCompressor().make(task, "int4-columns").module
    assert not any(isinstance(part, PackedTiers) for part in module.packed.values())
    spec, path = recall_step("gat"), tmp_path / "model.onnx"
    feed = sample_requests(task.dataset, task.settings, 2)
    example = {tensor.name: torch.from_numpy(feed[tensor.name]) for tensor in spec.inputs}
    export_graph(served_form(module, "onnxruntime"), spec, example, path, opset=20, max_batch=8)
    floats = [one for one in onnx.load(path).graph.initializer if one.data_type == onnx.TensorProto.FLOAT]
    assert max(int(np.prod(one.dims)) for one in floats) < task.model.item_vectors.numel() / 4

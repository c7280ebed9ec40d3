"""What a graph file costs and is made of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from core.errors import ExportError
from export.footprint import footprint, loaded_bytes
from pipeline.compressing.served import compare_speed

ROWS, WIDTH = 40_000, 64


def graph(path: Path, repeats: int = 1) -> Path:
    """A table of 10 MB, looked up and added to itself."""
    table = numpy_helper.from_array(np.ones((ROWS, WIDTH), dtype=np.float32), "table")
    nodes = [helper.make_node("Gather", ["table", "rows"], ["x0"])]
    nodes += [helper.make_node("Add", [f"x{at}", f"x{at}"], [f"x{at + 1}"]) for at in range(repeats)]
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("rows", TensorProto.INT64, ["B"])],
        [helper.make_tensor_value_info(f"x{repeats}", TensorProto.FLOAT, ["B", WIDTH])],
        [table],
    )
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def test_footprint_counts_bytes_operators_and_memory(tmp_path: Path) -> None:
    found = footprint(graph(tmp_path / "g.onnx", repeats=3))
    assert found.operators == {"Add": 3, "Gather": 1}
    assert found.tensors == {"float": ROWS * WIDTH * 4}
    assert found.file_bytes == (tmp_path / "g.onnx").stat().st_size
    assert found.loaded_bytes is None or found.loaded_bytes > ROWS * WIDTH * 4


def test_file_that_does_not_load_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"nonsense")
    with pytest.raises(ExportError, match=r"bad\.onnx"):
        loaded_bytes(tmp_path / "bad.onnx")


def test_speed_is_of_pairs_with_an_interval_around_their_median(tmp_path: Path) -> None:
    paths = graph(tmp_path / "one.onnx"), graph(tmp_path / "many.onnx", repeats=200)
    found = compare_speed(*paths, {"rows": np.arange(7)})
    assert (found.batch, found.rounds > 4) == (7, True)
    assert 0 < found.low <= found.faster <= found.high
    assert found.ms <= found.p95_ms

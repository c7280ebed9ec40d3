"""Hostile and damaged ONNX files: each is refused with its name and the reason, and none is loaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import settings as runs
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from core.errors import ExportError
from core.graph_check import check_onnx, graph_findings
from core.tensors import recall_step
from tests.synthetic_graphs import Shape, recall_graph

SPEC = recall_step("mf")
GOOD = recall_graph(SPEC, Shape(), np.random.default_rng(0))


def written(folder: Path, model: onnx.ModelProto) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def copy_of_good() -> onnx.ModelProto:
    model = onnx.ModelProto()
    model.CopyFrom(GOOD)
    return model


def initializer(model: onnx.ModelProto, name: str) -> onnx.TensorProto:
    return next(tensor for tensor in model.graph.initializer if tensor.name == name)


def external(model: onnx.ModelProto, location: str) -> None:
    table = initializer(model, "table")
    table.ClearField("raw_data")
    table.data_location = TensorProto.EXTERNAL
    table.external_data.add(key="location", value=location)


def poisoned(model: onnx.ModelProto, value: float) -> None:
    table = initializer(model, "table")
    values = numpy_helper.to_array(table).copy()
    values[3, 2] = value
    table.CopyFrom(numpy_helper.from_array(values, "table"))


def shortened(model: onnx.ModelProto) -> None:
    initializer(model, "table").raw_data = initializer(model, "table").raw_data[:-4]


def retyped(model: onnx.ModelProto, side: str, name: str, kind: int) -> None:
    value = next(value for value in getattr(model.graph, side) if value.name == name)
    value.type.tensor_type.elem_type = kind


def unused_node(model: onnx.ModelProto, name: str, domain: str = "") -> None:
    model.graph.node.append(helper.make_node(name, ["history_ages"], ["beside"], domain=domain))
    if domain:
        model.opset_import.append(helper.make_opsetid(domain, 1))


BREAKAGES: dict[str, tuple[Callable[[onnx.ModelProto], object], str]] = {
    "external data outside": (lambda m: external(m, "../../etc/passwd"), "outside the file's folder"),
    "external data at an absolute path": (lambda m: external(m, "/etc/passwd"), "outside the file's folder"),
    "external data beside the file": (lambda m: external(m, "weights.bin"), "weights in another file"),
    "a NaN weight": (lambda m: poisoned(m, np.nan), "NaN or infinite weights"),
    "an infinite weight": (lambda m: poisoned(m, np.inf), "NaN or infinite weights"),
    "weights that end early": (shortened, "table"),
    "ids as floats": (lambda m: retyped(m, "input", "history_rows", TensorProto.FLOAT), "graph-"),
    "another element type": (lambda m: retyped(m, "input", "user_features", TensorProto.INT32), "wrong element type"),
    "another input name": (lambda m: setattr(m.graph.input[5], "name", "other"), "wrong inputs"),
    "a missing output": (lambda m: m.graph.output.pop(), "wrong outputs"),
    "a fixed batch": (
        lambda m: setattr(m.graph.input[5].type.tensor_type.shape.dim[0], "dim_value", 2),
        "batch axis is fixed",
    ),
    "an operator that is not served": (lambda m: unused_node(m, "NonZero"), "operator NonZero"),
    "an operator of a foreign domain": (lambda m: unused_node(m, "Run", "evil.custom"), "foreign domain"),
    "an old opset": (lambda m: setattr(m.opset_import[0], "version", 9), "unknown opset"),
    "no opset": (lambda m: m.opset_import.pop(), "unknown opset"),
    "nodes in another order": (lambda m: m.graph.node.reverse(), "incomplete or inconsistent"),
    "a missing weight": (lambda m: m.graph.initializer.remove(initializer(m, "table")), "incomplete or inconsistent"),
    "a function of its own": (lambda m: m.functions.add(name="f", domain="x"), "functions"),
}


def test_a_served_graph_passes(tmp_path: Path) -> None:
    assert graph_findings(written(tmp_path, GOOD), SPEC) == []
    assert graph_findings(written(tmp_path, GOOD), SPEC, "tensorrt") == []


@pytest.mark.parametrize("name", BREAKAGES)
def test_a_broken_graph_is_refused_with_file_and_reason(name: str, tmp_path: Path) -> None:
    breakage, reason = BREAKAGES[name]
    model = copy_of_good()
    breakage(model)
    path = written(tmp_path, model)
    with pytest.raises(ExportError) as error:
        check_onnx(path, SPEC, ExportError)
    assert str(path) in str(error.value)
    assert reason in str(error.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [("empty", b""), ("text", b"not a graph at all"), ("zeros", bytes(1000)), ("half", b"\x3a\xff\xff\xff")],
)
def test_a_file_that_is_no_graph_is_refused(name: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / f"{name}.onnx"
    path.write_bytes(content)
    assert graph_findings(path, SPEC)


def test_a_link_is_refused(tmp_path: Path) -> None:
    link = tmp_path / "link.onnx"
    link.symlink_to(written(tmp_path, GOOD))
    assert [finding.rule for finding in graph_findings(link)] == ["graph-file"]


def test_a_large_file_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "large.onnx"
    with path.open("wb") as stream:
        stream.truncate(3_000_000_000)  # sparse
    assert [finding.rule for finding in graph_findings(path)] == ["graph-size"]


def test_all_reasons_are_told_at_once(tmp_path: Path) -> None:
    model = copy_of_good()
    external(model, "/etc/passwd")
    unused_node(model, "NonZero")
    rules = {finding.rule for finding in graph_findings(written(tmp_path, model), SPEC)}
    assert rules == {"graph-external-data", "graph-operator"}


def tensorrt_only(name: str) -> onnx.ModelProto:
    model = copy_of_good()
    if name == "graph-topk":
        initializer(model, "k").CopyFrom(numpy_helper.from_array(np.array([4096], np.int64), "k"))
        for value in model.graph.output:
            value.type.tensor_type.shape.dim[1].dim_value = 4096
    elif name == "graph-scatter":
        node = next(node for node in model.graph.node if node.op_type == "ScatterElements")
        node.attribute.append(helper.make_attribute("reduction", "add"))
    elif name == "graph-zero-point":
        model.graph.initializer.extend(
            [
                numpy_helper.from_array(np.ones(4, np.int8), "codes"),
                numpy_helper.from_array(np.float32(0.5), "scale"),
                numpy_helper.from_array(np.int8(3), "zero"),
            ]
        )
        model.graph.node.append(helper.make_node("DequantizeLinear", ["codes", "scale", "zero"], ["floats"]))
    else:
        model.graph.node.append(helper.make_node("DynamicQuantizeLinear", ["history_ages"], ["q", "s", "z"]))
    return model


@pytest.mark.parametrize("rule", ["graph-topk", "graph-scatter", "graph-zero-point", "graph-operator"])
def test_what_tensorrt_refuses_is_found_for_that_flavour_alone(rule: str, tmp_path: Path) -> None:
    path = written(tmp_path, tensorrt_only(rule))
    assert rule in {finding.rule for finding in graph_findings(path, None, "tensorrt")}
    assert rule not in {finding.rule for finding in graph_findings(path, None, "onnxruntime")}


GOOD_BYTES = GOOD.SerializeToString()


@given(st.integers(0, len(GOOD_BYTES) - 1))
@runs(max_examples=60)
def test_a_truncated_graph_is_always_refused(tmp_path_factory: pytest.TempPathFactory, length: int) -> None:
    path = tmp_path_factory.mktemp("cut") / "model.onnx"
    path.write_bytes(GOOD_BYTES[:length])
    findings = graph_findings(path, SPEC)
    assert findings
    assert all(str(path) in finding.where and finding.what for finding in findings)


@given(st.lists(st.tuples(st.integers(0, len(GOOD_BYTES) - 1), st.integers(1, 255)), min_size=1, max_size=8))
@runs(max_examples=100)
def test_flipped_bytes_are_refused_or_leave_a_graph_of_the_same_signature_and_finite_weights(
    tmp_path_factory: pytest.TempPathFactory, flips: list[tuple[int, int]]
) -> None:
    data = bytearray(GOOD_BYTES)
    for at, mask in flips:
        data[at] ^= mask
    path = tmp_path_factory.mktemp("flip") / "model.onnx"
    path.write_bytes(bytes(data))
    if graph_findings(path, SPEC):
        return
    model = onnx.load(path)
    assert [value.name for value in model.graph.input] == [tensor.name for tensor in SPEC.inputs]
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        assert values.dtype.kind != "f" or np.isfinite(values).all()

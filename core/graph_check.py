"""Looks at an ONNX file before anything loads it: size, structure, operators, signature, values.

Everything that a hostile or broken file could do to a loader is looked at without running it: weights outside the
file (a path that may lead anywhere), a protobuf that ends early, operators that nobody expects, tensors of another
type, NaN in the weights. What cannot be seen here is a weight of another finite value: that is what the manifest's
sha256 is for.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import numpy_helper

from core.errors import ConchError
from core.findings import Finding, refuse
from core.operators import ALLOWED, Flavour, domain_of
from core.sections.base import LONGEST_SORT
from core.tensors import DType, StepSpec, TensorSpec

GRAPH_LIMIT_BYTES = 2_000_000_000
"""A larger file is refused unread; protobuf ends at 2 GiB."""
OPSETS = (18, 21)
"""Oldest and newest opset that the supported ONNX Runtimes and TensorRTs all read; int4 tensors need 21."""
DYNAMIC_AXES = frozenset({"L", "X", "Q"})
ELEMENT_TYPES = {
    DType.INT64: onnx.TensorProto.INT64,
    DType.INT32: onnx.TensorProto.INT32,
    DType.FP32: onnx.TensorProto.FLOAT,
}
UNREADABLE = (DecodeError, ValueError, TypeError, RuntimeError, KeyError, OverflowError, IndexError)
"""What onnx and protobuf raise over damaged bytes."""


def check_onnx(
    path: Path,
    spec: StepSpec | None,
    error: type[ConchError],
    *,
    flavour: Flavour = "onnxruntime",
    next_step: str | None = None,
) -> None:
    """Raises ``error``, which names the file and every reason, where :func:`graph_findings` has any."""
    refuse(graph_findings(path, spec, flavour), error, next_step)


def graph_findings(path: Path, spec: StepSpec | None = None, flavour: Flavour = "onnxruntime") -> list[Finding]:
    """All that is wrong with an ONNX file, empty where it may be loaded.

    Args:
        path: The file.
        spec: The served step whose signature it must have; None leaves the signature alone.
        flavour: Who will run it.
    """
    stop = _file_finding(path)
    if stop is not None:
        return [stop]
    model = onnx.ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except UNREADABLE as error:
        return [Finding("graph-protobuf", str(path), "not an ONNX file, or one that ends early", found=_short(error))]
    findings = [*_external(path, model), *_operators(path, model, flavour)]
    if not findings and flavour == "tensorrt":
        findings += _tensorrt_rules(path, model)
    if findings:
        return findings  # the checks below would follow what was just refused
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # onnx raises a class of its own per library; all mean an invalid graph
        return [Finding("graph-structure", str(path), "the graph is incomplete or inconsistent", found=_short(error))]
    findings += _weights(path, model)
    if spec is not None:
        findings += _signature(path, model, spec)
    return findings


def _file_finding(path: Path) -> Finding | None:
    if path.is_symlink() or not path.is_file():
        return Finding("graph-file", str(path), "no plain file", found="a link" if path.is_symlink() else "nothing")
    size = path.stat().st_size
    if not 0 < size <= GRAPH_LIMIT_BYTES:
        return Finding(
            "graph-size", str(path), "file of a wrong size", f"1 to {GRAPH_LIMIT_BYTES:,} bytes", f"{size:,}"
        )
    return None


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs) if attribute.HasField("g") else attribute.graphs:
                yield from _graphs(inner)


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    for graph in _graphs(model.graph):
        yield from graph.initializer
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    yield attribute.t
                yield from attribute.tensors


def _external(path: Path, model: onnx.ModelProto) -> Iterator[Finding]:
    for tensor in _tensors(model):
        if tensor.data_location != onnx.TensorProto.EXTERNAL and not tensor.external_data:
            continue
        target = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
        parts = PurePosixPath(target.replace("\\", "/"))
        outside = parts.is_absolute() or ".." in parts.parts or (path.parent / target).is_symlink()
        what = "weights outside the file's folder" if outside else "weights in another file"
        yield Finding("graph-external-data", f"{path}, tensor {tensor.name}", what, "all weights inside", repr(target))


def _operators(path: Path, model: onnx.ModelProto, flavour: Flavour) -> Iterator[Finding]:
    allowed = ALLOWED[flavour]
    versions = {domain_of(entry.domain): entry.version for entry in model.opset_import}
    low, high = OPSETS
    if not low <= versions.get("", 0) <= high:
        yield Finding("graph-opset", str(path), "unknown opset", f"{low} to {high}", str(versions.get("", "none")))
    if model.functions or model.training_info:
        yield Finding("graph-functions", str(path), "functions or training graphs of its own", "none")
    used = {(domain_of(node.domain), node.op_type) for graph in _graphs(model.graph) for node in graph.node}
    for domain, name in sorted(used, key=str):  # names that are no UTF-8 come as bytes
        if domain not in allowed:
            yield Finding(
                "graph-domain", str(path), f"operator {name} of a foreign domain", f"{sorted(allowed)}", domain
            )
        elif name not in allowed[domain]:
            label = f"{domain}.{name}" if domain else name
            yield Finding("graph-operator", str(path), f"operator {label} is not served by {flavour}")
    for graph in _graphs(model.graph):
        for tensor in graph.sparse_initializer:
            yield Finding("graph-operator", f"{path}, tensor {tensor.values.name}", "sparse weights are not served")


def _weights(path: Path, model: onnx.ModelProto) -> Iterator[Finding]:
    for tensor in _tensors(model):
        where = f"{path}, tensor {tensor.name or 'of a node'}"
        try:
            values = numpy_helper.to_array(tensor)
        except UNREADABLE as error:
            yield Finding("graph-weights", where, "weights do not fill their shape", found=_short(error))
            continue
        if values.dtype.kind in "fV" and values.size:
            bad = int(np.count_nonzero(~np.isfinite(values.astype(np.float32, copy=False))))
            if bad:
                yield Finding(
                    "graph-weights", where, "NaN or infinite weights", "finite ones", f"{bad} of {values.size}"
                )


def _signature(path: Path, model: onnx.ModelProto, spec: StepSpec) -> Iterator[Finding]:
    initial = {tensor.name for tensor in model.graph.initializer}
    sides = (
        ("inputs", spec.inputs, [value for value in model.graph.input if value.name not in initial]),
        ("outputs", spec.outputs, list(model.graph.output)),
    )
    for side, tensors, values in sides:
        wanted, found = [tensor.name for tensor in tensors], [value.name for value in values]
        if wanted != found:
            yield Finding("graph-signature", str(path), f"wrong {side} of {spec.name}", str(wanted), str(found))
            continue
        for tensor, value in zip(tensors, values, strict=True):
            yield from _value(path, tensor, value)


def _value(path: Path, tensor: TensorSpec, value: onnx.ValueInfoProto) -> Iterator[Finding]:
    where = f"{path}, tensor {tensor.name}"
    kind = value.type.tensor_type
    if ELEMENT_TYPES.get(tensor.dtype) != kind.elem_type:
        found = onnx.TensorProto.DataType.Name(kind.elem_type) if kind.elem_type in _ELEMENTS else str(kind.elem_type)
        yield Finding("graph-dtype", where, "wrong element type", tensor.dtype.value, found)
    dims = kind.shape.dim
    if len(dims) != len(tensor.shape) + 1:
        yield Finding("graph-shape", where, "wrong rank", str(len(tensor.shape) + 1), str(len(dims)))
        return
    if dims[0].HasField("dim_value"):
        yield Finding("graph-shape", where, "the batch axis is fixed", "a dynamic one", str(dims[0].dim_value))
    for axis, dim in zip(tensor.shape, dims[1:], strict=True):
        given = dim.dim_value if dim.HasField("dim_value") else None
        if isinstance(axis, int) and given != axis:
            yield Finding("graph-shape", where, "wrong fixed axis", str(axis), str(given))
        elif isinstance(axis, str) and (given is None) != (axis in DYNAMIC_AXES):
            wanted = "a dynamic axis" if axis in DYNAMIC_AXES else "a fixed axis"
            yield Finding("graph-shape", where, f"wrong axis {axis}", wanted, str(given or dim.dim_param or "nothing"))


_ELEMENTS = frozenset(onnx.TensorProto.DataType.values())


def _tensorrt_rules(path: Path, model: onnx.ModelProto) -> Iterator[Finding]:
    """Rules of TensorRT that a look at the graph shows: see docs/decisions.md."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        where = f"{path}, node {node.name or node.op_type}"
        if node.op_type == "TopK" and len(node.input) > 1 and node.input[1] in constants:
            k = _integers(constants[node.input[1]])
            if k.max(initial=0) > LONGEST_SORT:
                yield Finding("graph-topk", where, "TensorRT sorts no longer lists", f"at most {LONGEST_SORT}", str(k))
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and len(node.input) > 2:
            zero = constants.get(node.input[2])
            if zero is not None and _integers(zero).any():
                yield Finding(
                    "graph-zero-point", where, "TensorRT takes symmetric quantization alone", "zero points of 0"
                )
        if node.op_type == "ScatterElements":
            reductions = [a.s.decode() for a in node.attribute if a.name == "reduction"]
            if any(name != "none" for name in reductions):
                yield Finding("graph-scatter", where, "TensorRT scatters without reduction", "none", reductions[0])
    for value in model.graph.input:
        if value.type.tensor_type.elem_type in _UNSIGNED:
            yield Finding(
                "graph-dtype", f"{path}, tensor {value.name}", "TensorRT takes no such input", "int32 or int64"
            )


def _integers(tensor: onnx.TensorProto) -> np.ndarray:
    """Values of a small tensor; nothing where its bytes are damaged, which other rules tell."""
    try:
        return np.atleast_1d(numpy_helper.to_array(tensor)).astype(np.int64)
    except UNREADABLE:
        return np.zeros(0, np.int64)


_UNSIGNED = frozenset(
    {
        onnx.TensorProto.UINT16,
        onnx.TensorProto.INT16,
        onnx.TensorProto.UINT32,
        onnx.TensorProto.UINT64,
        onnx.TensorProto.DOUBLE,
    }
)


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__

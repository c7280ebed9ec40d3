"""torch module → one ONNX file whose names, dtypes and dynamic axes are those of ``core.tensors``."""

from __future__ import annotations

import inspect
import logging
import warnings
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import nn

from core.errors import ExportError
from core.histories import LONGEST_HISTORY
from core.tensors import DType, StepSpec, TensorSpec

INLINE_LIMIT_BYTES = 1_500_000_000
"""Weights stay inside the file below this size; protobuf ends at 2 GB."""

ELEMENT_TYPES = {
    DType.INT64: onnx.TensorProto.INT64,
    DType.INT32: onnx.TensorProto.INT32,
    DType.FP32: onnx.TensorProto.FLOAT,
}
LONGEST_EXCLUDED = 1 << 20
"""Upper end of axis X for the exporter; a user who saw more than a million items does not exist."""


def export_graph(
    module: nn.Module, spec: StepSpec, example: dict[str, torch.Tensor], path: Path, *, opset: int, max_batch: int
) -> None:
    """Writes ``module`` as ONNX and checks the file against the step's signature.

    Args:
        module: Its forward takes the step's inputs in order and returns its outputs in order.
        spec: The step in ``core.tensors``.
        example: One tensor per input with batch >= 2 and history axes >= 16, so that nothing is specialised.
        path: File to write, ``*.onnx``.
        opset: ONNX opset.
        max_batch: Upper end of the batch axis.

    Raises:
        ExportError: The exporter failed, or the file lacks an axis, a name or a type.
    """
    weights = sum(tensor.numel() * tensor.element_size() for tensor in module.state_dict().values())
    if weights > INLINE_LIMIT_BYTES:
        raise ExportError(
            f"weights of {spec.name} do not fit into one ONNX file",
            expected=f"at most {INLINE_LIMIT_BYTES:,} bytes",
            found=f"{weights:,} bytes",
            next_step="lower the model's dimension",
        )
    axes = {
        "B": torch.export.Dim("B", min=1, max=max_batch),
        "L": torch.export.Dim("L", min=2, max=LONGEST_HISTORY),
        "X": torch.export.Dim("X", min=2, max=LONGEST_EXCLUDED),
        "Q": torch.export.Dim("Q", min=1, max=LONGEST_EXCLUDED),
    }
    shapes = tuple(
        {0: axes["B"]} | {at: axes[axis] for at, axis in enumerate(tensor.shape, 1) if axis in axes}
        for tensor in spec.inputs
    )
    exporter_log = logging.getLogger("torch.onnx")
    level = exporter_log.level
    exporter_log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # the exporter warns about its own internals
            torch.onnx.export(
                module.eval(),
                tuple(example[tensor.name] for tensor in spec.inputs),
                str(path),
                dynamo=True,
                opset_version=opset,
                input_names=[tensor.name for tensor in spec.inputs],
                output_names=[tensor.name for tensor in spec.outputs],
                dynamic_shapes=_as_arguments(module, shapes),
                external_data=False,
                verbose=False,
            )
    except Exception as error:  # the exporter raises many unrelated types; the cause is chained
        raise ExportError(f"{spec.name} does not export to ONNX", where=str(path), found=str(error)[:2000]) from error
    finally:
        exporter_log.setLevel(level)
    _without_notes(path)
    check_graph(path, spec, opset)


def _without_notes(path: Path) -> None:
    """Drops the exporter's notes for debugging, stack traces above all, and the shapes between nodes.

    They were a sixth to a third of a ranker's file. Readers of the file work the shapes out again.
    """
    model = onnx.load(path)
    graph = model.graph
    for holder in (model, graph, *graph.node, *graph.initializer, *graph.input, *graph.output):
        holder.doc_string = ""
        if "metadata_props" in holder.DESCRIPTOR.fields_by_name:
            del holder.metadata_props[:]
    del graph.value_info[:]
    path.write_bytes(model.SerializeToString())


def _as_arguments(module: nn.Module, shapes: tuple[dict[int, Any], ...]) -> tuple[Any, ...]:
    """Groups the shapes as the arguments of ``forward`` are: those of ``*arguments`` together."""
    parameters = list(inspect.signature(module.forward).parameters.values())
    fixed = sum(parameter.kind is not inspect.Parameter.VAR_POSITIONAL for parameter in parameters)
    return shapes if fixed == len(parameters) else (*shapes[:fixed], shapes[fixed:])


def check_graph(path: Path, spec: StepSpec, opset: int) -> None:
    """Asserts that an ONNX file has the step's names, types, dynamic axes, opset and inline weights.

    Raises:
        ExportError: The first difference.
    """
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    versions = {entry.domain: entry.version for entry in model.opset_import}
    _expect(path, "opset", opset, versions.get("", versions.get("ai.onnx")))
    _expect(path, "operator sets", [""], sorted({"" if d == "ai.onnx" else d for d in _domains_used(model)}))
    _expect(path, "inputs", [t.name for t in spec.inputs], [value.name for value in model.graph.input])
    _expect(path, "outputs", [t.name for t in spec.outputs], [value.name for value in model.graph.output])
    _expect(path, "external weights", 0, sum(t.data_location == 1 for t in model.graph.initializer))
    for tensor, value in zip((*spec.inputs, *spec.outputs), (*model.graph.input, *model.graph.output), strict=True):
        _check_value(path, tensor, value)


def fixed_axes(path: Path, spec: StepSpec) -> dict[str, int]:
    """Sizes of the axes that the graph of a step fixes (K, R, F), read from its inputs and outputs by name."""
    model = onnx.load(path, load_external_data=False)
    known = {tensor.name: tensor for tensor in (*spec.inputs, *spec.outputs)}
    sizes: dict[str, int] = {}
    for value in (*model.graph.input, *model.graph.output):
        for axis, dim in zip(known[value.name].shape, value.type.tensor_type.shape.dim[1:], strict=True):
            if isinstance(axis, str) and dim.HasField("dim_value"):
                sizes[axis] = dim.dim_value
    return sizes


def _check_value(path: Path, tensor: TensorSpec, value: onnx.ValueInfoProto) -> None:
    kind = value.type.tensor_type
    _expect(path, f"type of {tensor.name}", ELEMENT_TYPES[tensor.dtype], kind.elem_type)
    dims = kind.shape.dim
    _expect(path, f"rank of {tensor.name}", len(tensor.shape) + 1, len(dims))
    _expect(path, f"dynamic batch of {tensor.name}", True, bool(dims[0].dim_param))
    for axis, dim in zip(tensor.shape, dims[1:], strict=True):
        dynamic = axis in ("L", "X", "Q")
        _expect(path, f"axis {axis} of {tensor.name} is dynamic", dynamic, bool(dim.dim_param))


def _domains_used(model: onnx.ModelProto) -> set[str]:
    return {node.domain for node in model.graph.node} | {
        node.domain for function in model.functions for node in function.node
    }


def _expect(path: Path, what: str, expected: object, found: object) -> None:
    if expected != found:
        raise ExportError(
            f"exported graph has the wrong {what}", where=str(path), expected=str(expected), found=str(found)
        )

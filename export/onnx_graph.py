"""torch module → one ONNX file whose names, dtypes and dynamic axes are those of ``core.tensors``."""

from __future__ import annotations

import inspect
import logging
import warnings
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx_ir.passes.common import DeduplicateInitializersPass
from onnxscript.optimizer import optimize_ir
from torch import nn

from core.errors import ExportError
from core.graph_check import check_onnx
from core.histories import LONGEST_HISTORY
from core.tensors import StepSpec

INLINE_LIMIT_BYTES = 1_500_000_000
"""Weights stay inside the file below this size; protobuf ends at 2 GB."""

LARGEST_FOLDED = 1_024
"""Constants of up to this many elements are folded into the file. Larger ones stay as they are: folding would write a
packed table as floats, and ONNX Runtime folds once more when it loads."""

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
            program = torch.onnx.export(
                module.eval(),
                tuple(example[tensor.name] for tensor in spec.inputs),
                dynamo=True,
                optimize=False,
                opset_version=opset,
                input_names=[tensor.name for tensor in spec.inputs],
                output_names=[tensor.name for tensor in spec.outputs],
                dynamic_shapes=_as_arguments(module, shapes),
                verbose=False,
            )
            if program is None:
                raise ExportError(f"{spec.name} does not export to ONNX", where=str(path))
            optimize_ir(program.model, input_size_limit=LARGEST_FOLDED, output_size_limit=LARGEST_FOLDED)
            DeduplicateInitializersPass(size_limit=INLINE_LIMIT_BYTES)(program.model)
            program.save(str(path), external_data=False)
    except ExportError:
        raise
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
        ExportError: Everything that :func:`core.graph_check.graph_findings` finds, or another opset.
    """
    check_onnx(path, spec, ExportError)
    versions = {entry.domain: entry.version for entry in onnx.load(path).opset_import}
    found = versions.get("", versions.get("ai.onnx"))
    if found != opset:
        raise ExportError("exported graph has the wrong opset", where=str(path), expected=str(opset), found=str(found))


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

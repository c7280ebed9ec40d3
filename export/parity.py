"""Does the ONNX file compute what the torch module computes? Compared per output, at several batch sizes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import nn

from core.errors import ExportError
from core.tensors import MASKED, DType, StepSpec

Feeds = dict[str, np.ndarray]


@dataclass(frozen=True)
class Tolerance:
    """How far a float output may be off: ``|a - b| <= absolute + relative * |b|``."""

    absolute: float
    relative: float


RECALL_TOLERANCE = Tolerance(2e-4, 2e-4)
"""Of every recall source: the five conjugate-gradient steps of mf add up rounding."""
TOLERANCES: dict[str, Tolerance] = {
    "ranked_scores": Tolerance(5e-4, 5e-4),  # standardising per user divides by a small spread
    "reason_weights": Tolerance(1e-4, 1e-3),
    "ratings": Tolerance(2e-3, 2e-3),  # an inverse in float32, on the scale of the data
    "like_probabilities": Tolerance(1e-3, 0),
}


def tolerance(output: str) -> Tolerance:
    """Tolerance of a float output."""
    return TOLERANCES.get(output, RECALL_TOLERANCE)


def scores_of(output: str) -> str:
    """The scores that order an output of rows: rows may differ only where these tie within tolerance."""
    return "reason_weights" if output == "reason_rows" else output.removesuffix("_rows") + "_scores"


@dataclass(frozen=True)
class Comparison:
    """One output at one batch size.

    Attributes:
        output: Tensor name.
        batch: Batch size.
        worst: Largest absolute error of scores; for rows the share that differs beyond ties.
        mean: Mean absolute error of scores; for rows the share that differs at all.
        passed: Within tolerance.
    """

    output: str
    batch: int
    worst: float
    mean: float
    passed: bool


def open_session(path: Path, threads: int = 1, *, fused: bool = True) -> onnxruntime.InferenceSession:
    """A CPU session; not ``fused`` runs the operators as they are written, where ONNX Runtime would otherwise quantize
    the other side of a product with a dequantized table. Raises ExportError where ONNX Runtime refuses the file."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    if not fused:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises its own hierarchy per failure
        raise ExportError("ONNX Runtime refuses the graph", where=str(path), found=str(error)[:2000]) from error


def run_torch(module: nn.Module, spec: StepSpec, feeds: Feeds) -> list[np.ndarray]:
    """The module's outputs as arrays, in the order of the step."""
    with torch.no_grad():
        outputs = module(*(torch.from_numpy(feeds[tensor.name]) for tensor in spec.inputs))
    return [output.numpy() for output in outputs]


def check_parity(
    module: nn.Module, spec: StepSpec, path: Path, feeds: list[Feeds], *, fused: bool = True
) -> list[Comparison]:
    """Compares module and file on each of ``feeds``; ``fused`` as in :func:`open_session`.

    Raises:
        ExportError: An output that is not finite, or off by more than its tolerance.
    """
    session = open_session(path, fused=fused)
    results = []
    for feed in feeds:
        expected = dict(zip((t.name for t in spec.outputs), run_torch(module.eval(), spec, feed), strict=True))
        found = dict(zip((t.name for t in spec.outputs), session.run(None, feed), strict=True))
        batch = len(next(iter(feed.values())))
        for tensor in spec.outputs:
            result = (
                _compare_scores(tensor.name, batch, expected, found)
                if tensor.dtype is DType.FP32
                else _compare_rows(tensor.name, batch, expected, found)
            )
            results.append(result)
            if not result.passed:
                allowed = tolerance(tensor.name) if tensor.dtype is DType.FP32 else "ties"
                raise ExportError(
                    f"parity failed: {tensor.name} of {spec.name} at batch {batch}",
                    where=str(path),
                    expected=f"torch's values within {allowed}",
                    found=f"worst {result.worst:.3g}, mean {result.mean:.3g}",
                )
    return results


def as_report(results: list[Comparison]) -> list[dict[str, Any]]:
    """Plain values for JSON."""
    return [asdict(result) for result in results]


def _compare_scores(name: str, batch: int, expected: Feeds, found: Feeds) -> Comparison:
    a, b = found[name].astype(np.float64), expected[name].astype(np.float64)
    if a.shape != b.shape or not np.isfinite(a).all():
        return Comparison(name, batch, float("inf"), float("inf"), False)
    # A masked score only says "no candidate"; its exact value is not part of the contract.
    a, b = np.maximum(a, MASKED / 2), np.maximum(b, MASKED / 2)
    error, bound = np.abs(a - b), tolerance(name).absolute + tolerance(name).relative * np.abs(b)
    if name == "reason_weights":  # an item that swapped places with a tied one has reasons of its own
        error = np.where(_same_item(expected, found), error, 0.0)
    return Comparison(name, batch, float(error.max(initial=0)), float(error.mean()), bool((error <= bound).all()))


def _compare_rows(name: str, batch: int, expected: Feeds, found: Feeds) -> Comparison:
    """Rows agree where they are equal, or where their score ties with a neighbour's within tolerance."""
    a, b = found[name], expected[name]
    if a.shape != b.shape:
        return Comparison(name, batch, 1.0, 1.0, False)
    if scores_of(name) not in expected:  # a flag: no score excuses a difference
        return Comparison(name, batch, float((a != b).mean()), float((a != b).mean()), bool((a == b).all()))
    scores, bound = expected[scores_of(name)].astype(np.float64), tolerance(scores_of(name))
    slack = bound.absolute + bound.relative * np.abs(scores)
    close = np.abs(np.diff(scores, axis=-1)) <= slack[..., 1:] + slack[..., :-1]
    last = np.ones((*close.shape[:-1], 1), dtype=bool)  # the last place may tie with one that fell off the list
    tied = np.concatenate([close, last], -1) | np.concatenate([~last, close], -1)
    wrong = (a != b) & ~tied & (scores > MASKED / 2)
    if name == "reason_rows":
        wrong &= _same_item(expected, found)
    return Comparison(name, batch, float(wrong.mean()), float((a != b).mean()), not wrong.any())


def _same_item(expected: Feeds, found: Feeds) -> np.ndarray:
    same: np.ndarray = (expected["ranked_rows"] == found["ranked_rows"])[..., None]
    return same

"""A small release that needs no training: real ONNX graphs of a few nodes, real state files, real configs.

Recall scores items by a random embedding of the mean history; ranking merges the two lists by scattering their
scores. The reasons are the three newest items of the history. Small enough to start Triton in two seconds.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from core.features import FeatureColumn, FeatureTable
from core.histories import Histories
from core.sections import ServingSettings
from core.settings import ROOT
from core.tensors import EXPLANATIONS, MASKED, DType, StepSpec, rank_step, recall_step
from core.vocabulary import Vocabulary
from export.config import render_configs
from serving.release import ReleaseInfo
from serving.state import Catalogue, write_context_state, write_respond_state

OPSET = 20
SOURCES = ("mf", "gat")
TYPES = {DType.INT64: TensorProto.INT64, DType.FP32: TensorProto.FLOAT}


@dataclass(frozen=True)
class Shape:
    """Sizes of a synthetic release."""

    users: int = 120
    items: int = 60
    candidates: int = 40
    returned: int = 20
    features: int = 2
    dimension: int = 8
    max_batch: int = 16


SMALL = Shape()


def write_synthetic_release(
    folder: Path,
    *,
    version: int = 1,
    shape: Shape = SMALL,
    seed: int = 0,
    serving: ServingSettings | None = None,
) -> ReleaseInfo:
    """Writes a complete release folder. User ``u0`` has seen everything, ``u1`` nothing."""
    rng = np.random.default_rng(seed)
    sizes = {"K": shape.candidates, "R": shape.returned, "F": shape.features}
    release_id = f"r{version:06d}"
    repository = folder / "repository"
    for name, text in render_configs(version, SOURCES, sizes, shape.max_batch, serving).items():
        (repository / name / str(version)).mkdir(parents=True)
        (repository / name / "config.pbtxt").write_text(text, encoding="utf-8")
    for name in ("context", "respond"):
        shutil.copy(ROOT / "model_repository" / name / "1" / "model.py", repository / name / str(version))

    users = Vocabulary([f"u{row}" for row in range(shape.users)])
    items = Vocabulary([f"ítem-{row}" for row in range(shape.items)])
    histories = synthetic_histories(shape, rng)
    codes = rng.integers(0, 3, (shape.users, shape.features)).astype(np.int32)
    features = FeatureTable(tuple(FeatureColumn(f"f{at}", "category", 3, 1) for at in range(shape.features)), codes)
    catalogue = Catalogue(items, np.bincount(histories.item_rows, minlength=shape.items))
    write_context_state(repository / "context" / str(version), release_id, catalogue, users, histories, features)
    write_respond_state(repository / "respond" / str(version), release_id, catalogue)
    for spec in map(recall_step, SOURCES):
        onnx.save(recall_graph(spec, shape, rng), repository / spec.name / str(version) / "model.onnx")
    onnx.save(rank_graph(shape, sizes), repository / "rank" / str(version) / "model.onnx")

    info = ReleaseInfo(
        release_id=release_id,
        version=version,
        sources=SOURCES,
        sizes=sizes,
        n_items=shape.items,
        max_batch=shape.max_batch,
        created=datetime(2026, 1, 1, tzinfo=UTC),
    )
    info.write(folder)
    info.write(repository / "recommend" / str(version))
    return info


def synthetic_histories(shape: Shape, rng: np.random.Generator) -> Histories:
    """Distinct items per user; user 0 has all of them, user 1 none."""
    lengths = rng.integers(1, shape.items // 2, shape.users)
    lengths[0], lengths[1] = shape.items, 0
    rows = np.concatenate([rng.permutation(shape.items)[:length] for length in lengths])
    times = 1.6e9 + rng.random(len(rows)) * 1e7
    values = rng.standard_normal(len(rows))
    kinds = rng.integers(0, 3, len(rows))
    return Histories.from_events(np.repeat(np.arange(shape.users), lengths), rows, times, values, shape.users, kinds)


def recall_graph(spec: StepSpec, shape: Shape, rng: np.random.Generator) -> onnx.ModelProto:
    """Mean of history embeddings, times all items, seen ones masked, top K."""
    wide = shape.items + 1
    table = rng.standard_normal((wide, shape.dimension)).astype(np.float32)
    table[-1] = 0
    constants = {
        "table": table,
        "columns": np.ascontiguousarray(table.T),
        "popularity": rng.random(wide).astype(np.float32),
        "k": np.array([shape.candidates], np.int64),
        "one_axis": np.array([1], np.int64),
        "last": np.array([[shape.items]], np.int64),
        "masked": np.array([[MASKED]], np.float32),
        "one": np.array(1.0, np.float32),
    }
    rows, scores = (tensor.name for tensor in spec.outputs)
    nodes = [
        helper.make_node("Gather", ["table", "history_rows"], ["gathered"]),
        helper.make_node("Unsqueeze", ["history_values", "one_axis"], ["values_1l"]),
        helper.make_node("MatMul", ["values_1l", "gathered"], ["weighted_1d"]),
        helper.make_node("Squeeze", ["weighted_1d", "one_axis"], ["weighted"]),
        helper.make_node("ReduceSum", ["gathered", "one_axis"], ["summed"], keepdims=0),
        helper.make_node("Add", ["weighted", "summed"], ["user"]),
        helper.make_node("MatMul", ["user", "columns"], ["products"]),
        helper.make_node("Add", ["products", "popularity"], ["raw"]),
        # Age enters too, so that a wrong one shows in the scores.
        helper.make_node("ReduceSum", ["history_ages", "one_axis"], ["age"], keepdims=1),
        helper.make_node("Add", ["age", "one"], ["older"]),
        helper.make_node("Div", ["raw", "older"], ["all"]),
        *_masked("all", "exclude_rows", "free"),
        helper.make_node("TopK", ["free", "k"], [scores, rows], axis=1, largest=1, sorted=1),
    ]
    return _model(spec, nodes, constants, {"K": shape.candidates})


def rank_graph(shape: Shape, sizes: dict[str, int]) -> onnx.ModelProto:
    """Both lists scattered over all items, so that no item comes twice; top R; the newest three items as reasons."""
    constants = {
        "k": np.array([shape.returned], np.int64),
        "one_axis": np.array([1], np.int64),
        "empty": np.full((1, shape.items + 1), MASKED, np.float32),
        "zero": np.array([0], np.int64),
        "three": np.array([EXPLANATIONS], np.int64),
        "last": np.array([[shape.items]], np.int64),
        "masked": np.array([[MASKED]], np.float32),
        "wide": np.array([shape.items + 1], np.int64),
        "reason_tail": np.array([shape.returned, EXPLANATIONS], np.int64),
        "n_items": np.array(shape.items, np.int64),
        "shares": np.array([0.5, 0.3, 0.2], np.float32),
    }
    nodes = [
        helper.make_node("Shape", ["mf_rows"], ["batch"], end=1),
        helper.make_node("Concat", ["batch", "wide"], ["full"], axis=0),
        helper.make_node("Expand", ["empty", "full"], ["nothing"]),
        helper.make_node("ScatterElements", ["nothing", "mf_rows", "mf_scores"], ["with_mf"], axis=1),
        helper.make_node("ScatterElements", ["with_mf", "gat_rows", "gat_scores"], ["with_both"], axis=1),
        helper.make_node("Expand", ["masked", "batch_1"], ["mask_1"]),
        helper.make_node("Expand", ["last", "batch_1"], ["last_1"]),
        helper.make_node("ScatterElements", ["with_both", "last_1", "mask_1"], ["merged"], axis=1),
        helper.make_node("TopK", ["merged", "k"], ["ranked_scores", "ranked_rows"], axis=1, largest=1, sorted=1),
        helper.make_node("Slice", ["history_rows", "zero", "three", "one_axis"], ["newest"]),
        helper.make_node("Unsqueeze", ["newest", "one_axis"], ["newest_1"]),
        helper.make_node("Concat", ["batch", "reason_tail"], ["reason_shape"], axis=0),
        helper.make_node("Expand", ["newest_1", "reason_shape"], ["reason_rows"]),
        helper.make_node("Less", ["reason_rows", "n_items"], ["is_item"]),
        helper.make_node("Cast", ["is_item"], ["is_item_f"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["is_item_f", "shares"], ["reason_weights"]),
    ]
    nodes.insert(1, helper.make_node("Concat", ["batch", "one_axis"], ["batch_1"], axis=0))
    return _model(rank_step(SOURCES), nodes, constants, sizes)


def _masked(scores: str, rows: str, out: str) -> list[onnx.NodeProto]:
    """MASKED at ``rows`` and in the last column."""
    return [
        helper.make_node("Shape", [rows], [f"{out}_shape"]),
        helper.make_node("Expand", ["masked", f"{out}_shape"], [f"{out}_mask"]),
        helper.make_node("ScatterElements", [scores, rows, f"{out}_mask"], [f"{out}_seen"], axis=1),
        helper.make_node("Shape", [rows], [f"{out}_batch"], end=1),
        helper.make_node("Concat", [f"{out}_batch", "one_axis"], [f"{out}_batch_1"], axis=0),
        helper.make_node("Expand", ["last", f"{out}_batch_1"], [f"{out}_last"]),
        helper.make_node("Expand", ["masked", f"{out}_batch_1"], [f"{out}_last_mask"]),
        helper.make_node("ScatterElements", [f"{out}_seen", f"{out}_last", f"{out}_last_mask"], [out], axis=1),
    ]


def _model(
    spec: StepSpec, nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray], sizes: dict[str, int]
) -> onnx.ModelProto:
    value = lambda tensor: helper.make_tensor_value_info(  # noqa: E731
        tensor.name, TYPES[tensor.dtype], ["B", *(sizes.get(axis, axis) for axis in tensor.shape)]
    )
    graph = helper.make_graph(
        nodes,
        spec.name,
        [value(tensor) for tensor in spec.inputs],
        [value(tensor) for tensor in spec.outputs],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model

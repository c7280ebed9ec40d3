"""ONNX graphs of a few nodes with the signatures of the served ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from core.similarity import directions
from core.tensors import (
    EXPLANATIONS,
    MASKED,
    NEAREST_ITEMS,
    NEAREST_USERS,
    DType,
    StepSpec,
    rank_step,
)

OPSET = 20
SOURCES = ("mf", "gat")
TYPES = {DType.INT64: TensorProto.INT64, DType.INT32: TensorProto.INT32, DType.FP32: TensorProto.FLOAT}


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


def recall_graph(spec: StepSpec, shape: Shape, rng: np.random.Generator) -> onnx.ModelProto:
    """Mean of history embeddings, times all items, seen ones masked, top K."""
    wide = shape.items + 1
    table = rng.standard_normal((wide, shape.dimension)).astype(np.float32)
    table[-1] = 0
    constants: dict[str, np.ndarray] = {
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
    return _model(spec, nodes, constants, {"K": shape.candidates, "F": shape.features})


def rank_graph(shape: Shape, sizes: dict[str, int]) -> onnx.ModelProto:
    """Both lists scattered over all items, so that no item comes twice; top R; the newest three items as reasons."""
    constants = _constants(shape) | {
        "empty": np.full((1, shape.items + 1), MASKED, np.float32),
        "wide": np.array([shape.items + 1], np.int64),
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
        *_newest_as_reasons(),
    ]
    nodes.insert(1, helper.make_node("Concat", ["batch", "one_axis"], ["batch_1"], axis=0))
    return _model(rank_step(SOURCES), nodes, constants, sizes)


def nearest_items_graph(shape: Shape, rng: np.random.Generator) -> onnx.ModelProto:
    """Items by cosine with the sum of the given items' directions; the newest three given ones as reasons."""
    table = _directions(shape.items, shape, rng)
    constants = _constants(shape) | {
        "table": table,
        "columns": np.ascontiguousarray(table.T),
        "final": np.ones((1, 1), np.int32),
    }
    nodes = [
        helper.make_node("Shape", ["history_rows"], ["batch"], end=1),
        helper.make_node("Concat", ["batch", "one_axis"], ["batch_1"], axis=0),
        *_cosines("all"),
        *_masked("all", "exclude_rows", "free"),
        helper.make_node("TopK", ["free", "k"], ["ranked_scores", "ranked_rows"], axis=1, largest=1, sorted=1),
        *_newest_as_reasons(),
        helper.make_node("Expand", ["final", "batch_1"], ["final_order"]),
    ]
    return _model(NEAREST_ITEMS, nodes, constants, {"R": shape.returned})


def nearest_users_graph(shape: Shape, rng: np.random.Generator) -> onnx.ModelProto:
    """Users by cosine of a direction of their own with the sum of the history's."""
    constants = _constants(shape) | {
        "table": _directions(shape.items, shape, rng),
        "columns": np.ascontiguousarray(_directions(shape.users - 1, shape, rng).T),
    }
    nodes = [
        *_cosines("all"),
        helper.make_node(
            "TopK", ["all", "k"], ["nearest_user_scores", "nearest_user_rows"], axis=1, largest=1, sorted=1
        ),
    ]
    return _model(NEAREST_USERS, nodes, constants, {"R": shape.returned})


def _directions(rows: int, shape: Shape, rng: np.random.Generator) -> np.ndarray:
    """Random directions, float32 ``(rows + 1, D)``, the last one zero."""
    units = directions(rng.standard_normal((rows, shape.dimension)))
    return np.append(units, np.zeros((1, shape.dimension), np.float32), axis=0)


def _cosines(out: str) -> list[onnx.NodeProto]:
    """Cosine of each column with the sum of the history's rows of ``table``; MASKED where there is no history."""
    return [
        helper.make_node("Gather", ["table", "history_rows"], ["given"]),
        helper.make_node("ReduceSum", ["given", "one_axis"], ["question"], keepdims=0),
        helper.make_node("ReduceL2", ["question", "one_axis"], ["length"], keepdims=1),
        helper.make_node("Max", ["length", "tiny"], ["safe_length"]),
        helper.make_node("Div", ["question", "safe_length"], ["unit"]),
        helper.make_node("MatMul", ["unit", "columns"], ["cosines"]),
        helper.make_node("Greater", ["length", "tiny"], ["is_known"]),
        helper.make_node("Where", ["is_known", "cosines", "masked"], [out]),
    ]


def _newest_as_reasons() -> list[onnx.NodeProto]:
    """The newest three items of the history behind each of R items; needs ``batch``."""
    return [
        helper.make_node("Slice", ["history_rows", "zero", "three", "one_axis"], ["newest"]),
        helper.make_node("Unsqueeze", ["newest", "one_axis"], ["newest_1"]),
        helper.make_node("Concat", ["batch", "reason_tail"], ["reason_shape"], axis=0),
        helper.make_node("Expand", ["newest_1", "reason_shape"], ["reason_rows"]),
        helper.make_node("Less", ["reason_rows", "n_items"], ["is_item"]),
        helper.make_node("Cast", ["is_item"], ["is_item_f"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["is_item_f", "shares"], ["reason_weights"]),
    ]


def _constants(shape: Shape) -> dict[str, np.ndarray]:
    return {
        "k": np.array([shape.returned], np.int64),
        "one_axis": np.array([1], np.int64),
        "tiny": np.array(1e-12, np.float32),
        "zero": np.array([0], np.int64),
        "three": np.array([EXPLANATIONS], np.int64),
        "last": np.array([[shape.items]], np.int64),
        "masked": np.array([[MASKED]], np.float32),
        "reason_tail": np.array([shape.returned, EXPLANATIONS], np.int64),
        "n_items": np.array(shape.items, np.int64),
        "shares": np.array([0.5, 0.3, 0.2], np.float32),
    }


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

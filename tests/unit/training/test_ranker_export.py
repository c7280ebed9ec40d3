"""The exported graph answers as the module does, at other sizes than it was exported with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from core.tensors import rank_step
from tests.unit.ranking.worlds import SOURCES, random_inputs, random_ranker

RANK = rank_step(SOURCES)
FORBIDDEN = {"NonZero", "Unique", "ScatterElements", "ScatterND", "Loop", "If"}
"""Operators that TensorRT lacks or handles by a slow path."""


MEMBERS = (("network",), ("network", "network", "trees", "linear"))


@pytest.fixture(scope="module", params=MEMBERS, ids="+".join)
def members(request: pytest.FixtureRequest) -> tuple[str, ...]:
    chosen: tuple[str, ...] = request.param
    return chosen


@pytest.fixture(scope="module")
def graph(members: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ranker") / "model.onnx"
    batch, length = torch.export.Dim("B", min=1, max=64), torch.export.Dim("L", min=16, max=4096)
    program = torch.onnx.export(
        random_ranker(members=members),
        random_inputs(3, 32),
        input_names=[spec.name for spec in RANK.inputs],
        output_names=[spec.name for spec in RANK.outputs],
        dynamic_shapes=({0: batch, 1: length},) * 3 + ({0: batch}, ({0: batch},) * 4),
        dynamo=True,
        opset_version=20,
        verbose=False,
    )
    assert program is not None
    program.save(path)
    return path


@pytest.mark.parametrize("length", [16, 64])
@pytest.mark.parametrize("batch", [1, 2, 7])
def test_graph_equals_the_module(graph: Path, members: tuple[str, ...], batch: int, length: int) -> None:
    inputs = random_inputs(batch, length, seed=batch)
    session = onnxruntime.InferenceSession(graph)
    feed = {spec.name: tensor.numpy() for spec, tensor in zip(RANK.inputs, inputs, strict=True)}
    with torch.no_grad():
        wanted = random_ranker(members=members)(*inputs)
    for spec, one, two in zip(RANK.outputs, wanted, session.run(None, feed), strict=True):
        assert two.dtype == spec.dtype.numpy
        np.testing.assert_allclose(one.numpy(), two, rtol=1e-4, atol=1e-5, err_msg=spec.name)


def test_graph_equals_the_module_when_nothing_is_a_candidate(graph: Path, members: tuple[str, ...]) -> None:
    inputs = random_inputs(3, 16, masked=12)
    feed = {spec.name: tensor.numpy() for spec, tensor in zip(RANK.inputs, inputs, strict=True)}
    with torch.no_grad():
        wanted = random_ranker(members=members)(*inputs)
    found = onnxruntime.InferenceSession(graph).run(None, feed)
    assert all(np.array_equal(one.numpy(), two) for one, two in zip(wanted, found, strict=True))


def test_graph_has_only_operators_that_tensorrt_takes(graph: Path) -> None:
    model = onnx.load(graph)
    used = {node.op_type for node in model.graph.node}
    assert not used & FORBIDDEN
    assert {node.domain for node in model.graph.node} == {""}
    doubles = [tensor.name for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.DOUBLE]
    assert doubles == []

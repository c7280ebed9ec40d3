"""The gate by TensorRT for RTX: really run, skipped without the extra, failed where CONCH_REQUIRE=rtx."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from core.errors import ExportError
from core.sections import TensorrtSettings
from core.tensors import NEAREST_ITEMS, rank_step, recall_step
from export.tensorrt import gate
from export.tensorrt.check import must_accept
from export.tensorrt.gate import GraphVerdict, as_report, check_graph, negative_control
from export.tensorrt.profiles import Range, step_profile
from tests.synthetic_graphs import SOURCES, Shape, nearest_items_graph, rank_graph, recall_graph

SHAPE = Shape()
SIZES = {"K": SHAPE.candidates, "R": SHAPE.returned, "F": SHAPE.features}
SETTINGS = TensorrtSettings(longest_history=512)
RNG = np.random.default_rng(0)
GRAPHS = {
    recall_step("mf"): recall_graph(recall_step("mf"), SHAPE, RNG),
    rank_step(SOURCES): rank_graph(SHAPE, SIZES),
    NEAREST_ITEMS: nearest_items_graph(SHAPE, RNG),
}


@pytest.mark.usefixtures("rtx")
def test_the_negative_control_is_refused_with_nvidias_words() -> None:
    control = negative_control()
    assert control.verdict == "refused"
    assert "3840" in control.reason


@pytest.mark.usefixtures("rtx")
@pytest.mark.parametrize("spec", GRAPHS, ids=lambda spec: spec.name)
def test_a_graph_of_served_operators_is_accepted(spec: object, tmp_path: Path) -> None:
    path = tmp_path / "graph.onnx"
    onnx.save(GRAPHS[spec], path)  # type: ignore[index]
    verdict = check_graph(path, step_profile(spec, SIZES, SETTINGS, SHAPE.max_batch))  # type: ignore[arg-type]
    assert verdict.verdict == "accepted", verdict
    assert verdict.layers > 0
    assert verdict.engine_bytes > 0


@pytest.mark.usefixtures("rtx")
def test_an_operator_that_tensorrt_lacks_is_refused_by_name(tmp_path: Path) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(GRAPHS[recall_step("mf")])
    model.graph.node.append(helper.make_node("DynamicQuantizeLinear", ["history_ages"], ["q", "s", "z"]))
    model.graph.output.append(helper.make_tensor_value_info("q", onnx.TensorProto.UINT8, ["B", "L"]))
    path = tmp_path / "graph.onnx"
    onnx.save(model, path)
    verdict = check_graph(path)
    assert verdict.verdict == "refused"
    assert "DynamicQuantizeLinear" in verdict.reason


@pytest.mark.usefixtures("rtx")
def test_a_build_that_takes_too_long_is_no_refusal(tmp_path: Path) -> None:
    path = tmp_path / "graph.onnx"
    onnx.save(GRAPHS[NEAREST_ITEMS], path)
    verdict = check_graph(path, timeout_seconds=0.01)
    assert (verdict.verdict, verdict.stage) == ("could not run", "timeout")


def test_without_the_package_nothing_is_claimed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "PACKAGE", "no_such_package")
    verdict = check_graph(tmp_path / "graph.onnx")
    assert verdict.verdict == "could not run"
    assert "make setup-rtx" in verdict.reason


def test_a_refused_or_unknown_graph_is_an_error() -> None:
    good, unknown = GraphVerdict("a.onnx", "accepted"), GraphVerdict("b.onnx", "could not run", "why")
    must_accept((good,))
    with pytest.raises(ExportError, match=r"b\.onnx"):
        must_accept((good, unknown))
    assert as_report((good,), unknown)["does_not_prove"]


def test_profiles_cover_one_user_and_the_largest_batch() -> None:
    profile = {one.name: one for one in step_profile(rank_step(SOURCES), SIZES, SETTINGS, 16)}
    assert profile["history_rows"].low == (1, 16)
    assert profile["history_rows"].typical == (8, 128)
    assert profile["history_rows"].high == (16, 512)
    assert profile["mf_rows"].low == (1, 40)
    assert profile["mf_rows"].high == (16, 40)


def test_profiles_of_a_small_batch_limit_stay_in_order() -> None:
    profile = step_profile(NEAREST_ITEMS, SIZES, SETTINGS, 2)
    assert profile[0].typical[0] == 2


def test_sizes_out_of_order_are_refused() -> None:
    with pytest.raises(ValueError, match="out of order"):
        Range(4, 2, 8)

"""Builds a plan for real. Has not run yet; on a machine with a GPU: pytest tests/gpu, CONCH_REQUIRE=gpu to insist."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from core.sections import TensorrtSettings
from core.tensors import recall_step
from export.tensorrt.build import build_plan, missing_parts, this_machine
from export.tensorrt.plan import refuse_foreign
from export.tensorrt.profiles import step_profile
from tests.synthetic_graphs import Shape, recall_graph


@pytest.fixture
def gpu(require: Callable[[str, bool, str], None]) -> None:
    missing = missing_parts()
    require("gpu", not missing, "; ".join(missing))


@pytest.mark.usefixtures("gpu")
def test_a_plan_is_built_and_belongs_here(tmp_path: Path) -> None:
    shape, spec, settings = Shape(), recall_step("mf"), TensorrtSettings(longest_history=512)
    path, plan, here = tmp_path / "graph.onnx", tmp_path / "graph.plan", this_machine()
    onnx.save(recall_graph(spec, shape, np.random.default_rng(0)), path)
    profile = step_profile(spec, {"K": shape.candidates, "F": shape.features}, settings, shape.max_batch)
    facts = build_plan(path, plan, spec.name, profile, settings, here, tmp_path / "caches")
    refuse_foreign(plan, facts, here)
    assert (tmp_path / "caches" / f"{here.key}.timing").is_file()

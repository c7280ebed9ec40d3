"""What can be known of plans without a GPU: versions, foreign plans, and what a machine without one is told."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core.errors import ExportError
from core.settings import Settings
from export.tensorrt.build import missing_parts, this_machine
from export.tensorrt.plan import Machine, PlanFacts, check_version, foreign_reasons, read_facts, refuse_foreign
from export.tensorrt.stage import refuse_unmade, write_facts

HERE = Machine(gpu="NVIDIA L4", compute_capability=(8, 9), tensorrt="10.14.1")


def facts(plan: bytes = b"plan", **changes: Any) -> PlanFacts:
    base: dict[str, Any] = {
        "step": "rank",
        "gpu": HERE.gpu,
        "compute_capability": HERE.compute_capability,
        "tensorrt": HERE.tensorrt,
        "hardware": "same",
        "version_compatible": False,
        "refit": True,
        "precision": "fp32",
        "onnx_sha256": "0" * 64,
        "plan_sha256": hashlib.sha256(plan).hexdigest(),
        "profiles": [],
        "build_seconds": 1.0,
    }
    return PlanFacts(**(base | changes))


@pytest.mark.parametrize("version", ["11.3", "11.3.0", "11.3.1.2", "9.3.0", "12.0", "odd"])
def test_blocked_and_unknown_versions_are_refused(version: str) -> None:
    with pytest.raises(ExportError):
        check_version(version)


@pytest.mark.parametrize("version", ["10.14.1.48", "11.0", "11.4.0.1", "11.30.0"])
def test_other_versions_of_ten_and_eleven_are_taken(version: str) -> None:
    check_version(version)


@pytest.mark.parametrize(
    ("changes", "runs"),
    [
        ({}, True),
        ({"gpu": "NVIDIA A10"}, False),
        ({"tensorrt": "10.13.0"}, False),
        ({"tensorrt": "10.13.0", "version_compatible": True}, True),
        ({"tensorrt": "11.0.0", "version_compatible": True}, False),
        ({"gpu": "NVIDIA L40", "hardware": "same_compute_capability"}, True),
        ({"compute_capability": (8, 6), "hardware": "same_compute_capability"}, False),
        ({"compute_capability": (8, 0), "gpu": "NVIDIA A100", "hardware": "ampere_plus"}, True),
    ],
)
def test_a_plan_runs_where_its_flags_say(changes: dict[str, Any], runs: bool) -> None:
    assert (foreign_reasons(facts(**changes), HERE) == []) is runs


def test_a_foreign_or_altered_plan_is_refused_by_name(tmp_path: Path) -> None:
    plan = tmp_path / "rank.plan"
    plan.write_bytes(b"plan")
    refuse_foreign(plan, facts(), HERE)
    with pytest.raises(ExportError, match="NVIDIA A10"):
        refuse_foreign(plan, facts(gpu="NVIDIA A10"), HERE)
    plan.write_bytes(b"plam")
    with pytest.raises(ExportError, match=r"rank\.plan"):
        refuse_foreign(plan, facts(), HERE)


def test_facts_read_back_and_damaged_ones_are_refused(tmp_path: Path) -> None:
    write_facts(tmp_path, facts())
    path = tmp_path / "rank.plan.json"
    assert read_facts(path) == facts()
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ExportError, match="plan without"):
        read_facts(path)


def test_a_machine_that_lacks_something_is_told_what_and_where_to_go(
    require: Callable[[str, bool, str], None],
) -> None:
    require("a machine without GPU", bool(missing_parts()), "this one can build plans")
    with pytest.raises(ExportError, match=r"no package tensorrt|no NVIDIA") as error:
        this_machine()
    assert "conch export --target tensorrt" in str(error.value.next_step)


def test_what_is_not_made_is_refused_not_ignored() -> None:
    refuse_unmade(Settings())
    for section in ({"precision": "fp16"}, {"capacity_step": 1024}):
        with pytest.raises(ExportError, match="not made yet"):
            refuse_unmade(Settings.model_validate({"tensorrt": section}))

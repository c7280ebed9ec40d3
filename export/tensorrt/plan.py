"""What a plan says about itself, and whether it may run here.

A plan is tied to the GPU model and the TensorRT version that built it; TensorRT offers no look before it loads one.
So ``plan.json`` lies beside each plan, and is compared first. Pure: no TensorRT is needed to refuse a plan.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from core.artifacts import sha256_of
from core.errors import ExportError

BLOCKED = ("11.3",)
"""TensorRT versions that may drop a GEMM's bias in a plan that can be refitted."""
SUPPORTED = (10, 11)
AMPERE = 8


class Machine(BaseModel):
    """A GPU and the TensorRT beside it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    gpu: str
    compute_capability: tuple[int, int]
    tensorrt: str

    @property
    def key(self) -> str:
        """Name of what is tied to both: timing caches above all."""
        return f"{self.gpu.replace(' ', '-').replace('/', '-').lower()}-trt{self.tensorrt}"


class PlanFacts(BaseModel):
    """``plan.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = 1
    step: str
    gpu: str
    compute_capability: tuple[int, int]
    tensorrt: str
    hardware: Literal["same", "same_compute_capability", "ampere_plus"]
    version_compatible: bool
    refit: bool
    precision: Literal["fp32", "fp16"]
    onnx_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    plan_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    profiles: list[dict[str, Any]]
    build_seconds: float


def check_version(version: str) -> None:
    """Raises ExportError for a TensorRT that is too old, too new or known to be wrong."""
    if not version.split(".")[0].isdigit() or int(version.split(".")[0]) not in SUPPORTED:
        raise ExportError("TensorRT of an unknown generation", expected="10 or 11", found=version)
    if any(version == blocked or version.startswith(f"{blocked}.") for blocked in BLOCKED):
        raise ExportError(
            "this TensorRT may drop biases in plans that can be refitted",
            expected="10.14 or newer, not 11.3",
            found=version,
            next_step="pip install 'tensorrt>=11.4'",
        )


def read_facts(path: Path) -> PlanFacts:
    """Reads plan.json. Raises ExportError where it is missing or not one of ours."""
    try:
        return PlanFacts.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise ExportError("plan without what it was built on", where=str(path), found=str(error)[:300]) from None


def refuse_foreign(plan: Path, facts: PlanFacts, here: Machine) -> None:
    """Raises ExportError where a plan was altered, or was built for another GPU or another TensorRT."""
    reasons = foreign_reasons(facts, here)
    if sha256_of(plan) != facts.plan_sha256:
        reasons = ["the file differs from its sha256", *reasons]
    if reasons:
        raise ExportError(
            "foreign or altered plan",
            where=str(plan),
            expected=f"built on {here.gpu}, compute capability {_dotted(here)}, TensorRT {here.tensorrt}",
            found="; ".join(reasons),
            next_step="build it here: conch export --target tensorrt",
        )


def foreign_reasons(facts: PlanFacts, here: Machine) -> list[str]:
    """Why a plan does not run here; empty where it does."""
    reasons = []
    built, mine = _numbers(facts.tensorrt), _numbers(here.tensorrt)
    if built != mine and not (facts.version_compatible and built[0] <= mine[0] and built <= mine):
        reasons.append(f"TensorRT {facts.tensorrt}")
    if facts.hardware == "same" and (facts.gpu, facts.compute_capability) != (here.gpu, here.compute_capability):
        reasons.append(f"GPU {facts.gpu}")
    if facts.hardware == "same_compute_capability" and facts.compute_capability != here.compute_capability:
        reasons.append(f"compute capability {_dotted(facts)}")
    if facts.hardware == "ampere_plus" and here.compute_capability[0] < AMPERE:
        reasons.append(f"compute capability {_dotted(here)} is before Ampere")
    return reasons


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:3] if part.isdigit())


def _dotted(machine: Machine | PlanFacts) -> str:
    return ".".join(map(str, machine.compute_capability))

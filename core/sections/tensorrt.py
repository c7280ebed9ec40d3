"""Plans of TensorRT: made on the machine that will run them, from the exported graphs."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from core.sections.base import Section


class TensorrtSettings(Section):
    """How plans are built, see export/tensorrt/. Classic TensorRT 10 or 11, not 11.3."""

    precision: Literal["fp32", "fp16"] = "fp32"
    """Types inside the graphs. TensorRT 11 takes them from the ONNX file alone, so fp16 is written into it."""
    typical_batch: int = Field(8, ge=1)
    """Batch that kernels are chosen for; export.max_batch is the largest one."""
    typical_history: int = Field(128, ge=16)
    """History length that kernels are chosen for."""
    longest_history: int = Field(4096, ge=16)
    """Largest history and largest list of excluded items that a plan takes; longer requests need the ONNX graphs."""
    workspace_megabytes: int = Field(2048, ge=16)
    """Scratch memory that a kernel may use."""
    version_compatible: bool = False
    """Plans of TensorRT 10 run on 11 too, slower; Triton must then be started with
    --backend-config=tensorrt,version-compatible=true."""
    hardware: Literal["same", "same_compute_capability", "ampere_plus"] = "same"
    """GPUs that a plan runs on: the model it was built on, all of its compute capability, or all from Ampere on."""
    refit: bool = True
    """Plans take new weights of the same shapes, so that a retrain needs no new build."""
    capacity_step: int = Field(0, ge=0)
    """Item tables are padded to a multiple of this, so that new items keep the shapes; 0 leaves them as they are."""
    fallback: bool = True
    """Serve ONNX for a graph that gets no plan. Always logged and recorded; false makes it an error."""
    timing_cache: bool = True
    """Keep kernel timings per GPU and TensorRT version under paths.var, so that rebuilds are quick."""

    @model_validator(mode="after")
    def _ordered(self) -> TensorrtSettings:
        if self.typical_history > self.longest_history:
            raise ValueError("typical_history is above longest_history")
        return self

"""What is exported, served and laid over the ranking."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from core.sections.base import Section


class ExportSettings(Section):
    target: Literal["onnx", "tensorrt"] = "onnx"
    """What `conch export` ends with: graphs, or plans of them too (on a machine with the GPU that will serve)."""
    opset: int = 20
    """ONNX opset; 20 is read by every current ONNX Runtime and TensorRT 10/11."""
    max_batch: int = Field(64, ge=1)
    """Largest batch of the served graphs."""


class RerankSettings(Section):
    """Variety and business rules over the ranked candidates, see serving/rerank.py."""

    method: Literal["none", "mmr", "dpp"] = "dpp"
    """mmr: each item unlike the nearest one above it. dpp: the list spans as much as it can. none: rules alone."""
    diversity: float = Field(0.0, ge=0, le=1)
    """Weight of variety against the score where a request names none; 0 leaves the ranking as it is."""
    pool: int = Field(100, ge=1)
    """Ranked candidates that compete for the places of a list; more than serving.max_k changes nothing."""
    rules: Path | None = None
    """TOML file of items to exclude, boost and cap, see pipeline/rules.py."""


class SimilarSettings(Section):
    """Similar items and users as served models, from the vectors of a recall source."""

    source: str = "gat"
    """Recall source whose vectors say how alike items and users are; the first one where this is not trained."""
    items: bool = True
    """Serve similar items."""
    users: bool = False
    """Serve similar users, for analysts: the release then holds a vector of every user, and answers name users."""


class ServingSettings(Section):
    """Triton, its models and its clients."""

    host: str = "127.0.0.1"
    """Address that Triton listens on. Never one that users reach: a malformed request can end the server."""
    http_port: int = Field(8000, ge=1, le=65535)
    grpc_port: int = Field(8001, ge=1, le=65535)
    metrics_port: int = Field(8002, ge=1, le=65535)
    metrics_host: str = ""
    """Address of the metrics alone, where Prometheus is on another machine; empty is host."""
    max_k: int = Field(100, ge=1)
    """R, the most items one answer can hold."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where the ONNX steps run; the python steps always run on the CPU."""
    flavour: Literal["wheel", "cuda", "tensorrt_provider", "tensorrt_plan"] = "wheel"
    """How config.pbtxt runs the graphs: onnxruntime on the CPU (the python-based backend of the wheel, or NVIDIA's),
    onnxruntime with CUDA, onnxruntime with TensorRT inside, or TensorRT plans. All but the first want NVIDIA's
    container, a GPU and device = "cuda"."""
    graph_instances: int = Field(1, ge=1)
    """Copies of each ONNX step; each holds its own weights."""
    graph_threads: int = Field(1, ge=1)
    """Threads of ONNX Runtime per instance."""
    local_threads: int = Field(0, ge=0)
    """Threads of ONNX Runtime where a release answers in process (evaluation, batch jobs); 0 takes all cores."""
    python_instances: int = Field(1, ge=1)
    """Processes of each python step."""
    max_queue_delay_microseconds: int = Field(0, ge=0)
    """How long a step waits for more requests to join a batch; 0 batches only what already waits."""
    deadline_seconds: float = Field(5.0, gt=0)
    """How long the client waits for an answer."""
    start_timeout_seconds: float = Field(120.0, gt=0)
    stop_timeout_seconds: float = Field(15.0, gt=0)
    """Grace between asking Triton to stop and ending it."""
    container_image: str = "nvcr.io/nvidia/tritonserver:26.07-py3"
    """Used where the server from PyPI does not run (macOS, arm64, old glibc) and docker is there."""

    @model_validator(mode="after")
    def _gpu_where_needed(self) -> ServingSettings:
        if self.flavour != "wheel" and self.device != "cuda":
            raise ValueError(f'flavour "{self.flavour}" needs device = "cuda"')
        return self

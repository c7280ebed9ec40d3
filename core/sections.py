"""The sections of the settings tree. Each field's docstring is its documentation."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Split = Literal["train", "valid", "test"]


class Section(BaseModel):
    """Base of all sections: frozen, and a typo is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class PathSettings(Section):
    var: Path = Path("var")
    """Everything that Conch writes lies under this folder."""


class DataSettings(Section):
    source: str = "movielens-100k"
    """movielens-100k, movielens-1m, movielens-10m, movielens-20m, movielens-25m, movielens-32m, files, synthetic."""
    events: Path | None = None
    """source=files: CSV (.gz too) or Parquet with user_id, item_id, timestamp and optionally value, event, split."""
    items: Path | None = None
    """source=files: optional table with item_id and any attribute columns."""
    users: Path | None = None
    """source=files: optional table with user_id and any attribute columns."""
    title_column: str = "title"
    """Item column shown to people; the id is shown where it is missing."""
    max_bad_share: float = Field(0.01, ge=0, le=1)
    """Bad rows are dropped and counted up to this share of the file; above it the file is refused."""
    min_user_events: int = Field(1, ge=1)
    """k-core: users with fewer events are dropped, repeatedly with min_item_events."""
    min_item_events: int = Field(1, ge=1)
    """k-core: items with fewer events are dropped."""
    train_until: float = Field(0.8, gt=0, lt=1)
    """Quantile of time that ends the train split."""
    valid_until: float = Field(0.9, gt=0, lt=1)
    """Quantile of time that ends the valid split; later events are test."""
    synthetic_users: int = Field(2_000, ge=2)
    synthetic_items: int = Field(500, ge=2)
    synthetic_events: int = Field(50_000, ge=10)
    seed: int = 0
    """Seed of the synthetic generator."""


class TrainSettings(Section):
    fit: tuple[Split, ...] = ("train", "valid")
    """Splits that the shipped models learn from. Add "test" to ship on everything, nothing is left to measure then."""
    seed: int = 0
    threads: int = Field(0, ge=0)
    """Threads for torch and numba; 0 takes all cores."""
    device: str = "cpu"
    """cpu or cuda; never chosen silently."""


class MfSettings(Section):
    """iALS. Weights follow notes in docs/decisions.md."""

    dimension: int = Field(32, ge=1)
    epochs: int = Field(12, ge=1)


class GatSettings(Section):
    """Graph attention recall."""

    dimension: int = Field(32, ge=1)
    epochs: int = Field(8, ge=1)


class RecallSettings(Section):
    candidates: int = Field(200, ge=1, le=3840)
    """K, candidates per recall source. TensorRT's TopK ends at 3840."""


class RankerSettings(Section):
    """DCN-v2/DIN-class ranker."""

    epochs: int = Field(8, ge=1)


class ExportSettings(Section):
    opset: int = 20
    """ONNX opset; 20 is read by every current ONNX Runtime and TensorRT 10/11."""
    max_batch: int = Field(64, ge=1)
    """Largest batch of the served graphs."""


class ServingSettings(Section):
    host: str = "127.0.0.1"
    http_port: int = 8000
    grpc_port: int = 8001
    metrics_port: int = 8002
    max_k: int = Field(100, ge=1)
    """R, the most items one answer can hold."""
    start_timeout_seconds: float = 120.0


class EvaluateSettings(Section):
    ks: tuple[int, ...] = (10, 20, 100)

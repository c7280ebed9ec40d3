"""What an artefact says about itself."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict


class FileRecord(BaseModel):
    """One payload file of an artefact."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    """Relative to the artefact, with forward slashes."""
    sha256: str
    size_bytes: int


class Manifest(BaseModel):
    """``manifest.json``: written last, never edited."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = 1
    kind: str
    run_id: str
    created: datetime
    code_commit: str
    parents: dict[str, str]
    """Kind of each parent artefact to the sha256 of its manifest."""
    settings: dict[str, Any]
    """The settings sections that this artefact depends on."""
    seed: int
    seconds: float
    files: tuple[FileRecord, ...]
    tensors: dict[str, Any] = {}
    """Facts about tensors: sizes of named axes, dtypes."""
    metrics: dict[str, Any] = {}
    environment: dict[str, str] = {}

    def to_json(self) -> bytes:
        return (self.model_dump_json(indent=1) + "\n").encode()

    def digest(self) -> str:
        """sha256 of the manifest as written: the artefact's identity, used by its children."""
        return hashlib.sha256(self.to_json()).hexdigest()

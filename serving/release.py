"""A release: the folder that export/release.py writes and serving installs, reads and answers from.

Its files:
    release.json                                    what it is (``ReleaseInfo``)
    repository/<model>/config.pbtxt                 one per step and one per ensemble
    repository/<graph>/<version>/model.onnx         recall_<source> for each source, rank, nearest_<noun>, rating
                                                    or model.plan and plan.json where TensorRT serves it
    repository/context/<version>/                   model.py, vocabulary.parquet, user_codes.json,
                                                    history.sqlite, state.json
    repository/respond/<version>/                   model.py, vocabulary.parquet, rerank.npz, state.json
    repository/name_users/<version>/                model.py, users.parquet, state.json           | where they
    repository/rate_items/<version>/                model.py, vocabulary.parquet, state.json      | are served
    repository/<ensemble>/<version>/release.json    a copy: an ensemble's version folder may not be missing
"""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from core.artifacts import write_json
from core.errors import ReleaseError

RELEASE_FILE = "release.json"
REPOSITORY = "repository"
GRAPH_FILE = "model.onnx"
STEP_FILE = "model.py"
PLAN_FILE = "model.plan"
PLAN_FACTS = "plan.json"
"""What a plan was built from and on; it runs nowhere else."""
VERSION_NAME = re.compile(r"[1-9][0-9]{0,8}")
"""Names of version folders. A name above int64 aborts Triton 2.51."""


class ReleaseInfo(BaseModel):
    """``release.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    release_id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    """In every response and every impression."""
    version: int = Field(ge=1, le=999_999_999)
    """Name of the release's version folder in every model."""
    sources: tuple[str, ...] = Field(min_length=1)
    """Recall sources in order."""
    extras: tuple[str, ...] = ()
    """Models served beside ``recommend``, see ``core.ensembles.EXTRAS``."""
    sizes: dict[str, int]
    """The axes that this release fixes: K, R, F."""
    n_items: int = Field(ge=1)
    """I, the size of the catalogue."""
    max_batch: int = Field(ge=1)
    created: datetime
    parents: dict[str, str] = {}
    """Kind of each parent artefact to the sha256 of its manifest."""
    facts: dict[str, Any] = {}
    """Anything else worth telling an operator: metrics, data set, splits."""

    @property
    def max_k(self) -> int:
        """R, the most items one answer can hold."""
        return self.sizes["R"]

    def write(self, folder: Path) -> None:
        """Writes ``folder/release.json``."""
        write_json(folder / RELEASE_FILE, self.model_dump(mode="json"))


def live_repository(var: Path) -> Path:
    """Where the repository lies that Triton serves; ``var`` is ``paths.var``."""
    return var / REPOSITORY


def read_release(folder: Path) -> ReleaseInfo:
    """Reads ``folder/release.json``.

    Raises:
        ReleaseError: No such file, or not one of ours.
    """
    file = folder / RELEASE_FILE
    try:
        return ReleaseInfo.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        raise ReleaseError(
            "no release here", where=str(folder), expected=f"a folder with {RELEASE_FILE}", next_step="conch release"
        ) from None
    except ValidationError as error:
        first = error.errors()[0]
        raise ReleaseError(
            "release.json cannot be read",
            where=f"{file}, key {'.'.join(map(str, first['loc']))}",
            expected=first["msg"],
            found=repr(first.get("input"))[:200],
            next_step="conch release",
        ) from None

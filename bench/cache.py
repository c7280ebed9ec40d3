"""Finished measurements on disk, found again by everything that decides them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.machine import measured_commit
from core.artifacts import sha256_of, write_json
from core.settings import ROOT

FACTS = "done.json"


def digest(value: Any) -> str:
    """Short hash of plain JSON values."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def code_digest(folders: Iterable[str], root: Path = ROOT) -> str:
    """Short hash of all Python files under the named folders or files of the checkout, as they lie there."""
    files = sorted(
        file for name in folders for file in ([root / name] if (root / name).is_file() else (root / name).rglob("*.py"))
    )
    return digest([(file.relative_to(root).as_posix(), sha256_of(file)) for file in files])


def find(folder: Path) -> dict[str, Any] | None:
    """Facts of a finished measurement, None where there is none."""
    file = folder / FACTS
    found: dict[str, Any] | None = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
    return found


def finish(folder: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """Seals a measurement, with the time and the commit; written last."""
    sealed = {"measured_at": f"{datetime.now(UTC):%Y-%m-%dT%H:%MZ}", "commit": measured_commit(), **facts}
    temporary = folder / f".{FACTS}"
    write_json(temporary, sealed)
    temporary.replace(folder / FACTS)
    return sealed

"""Small files for tests of the dataset stage."""

from __future__ import annotations

import gzip
from datetime import UTC, datetime
from pathlib import Path

import pytest

from core.artifacts import Artifact
from core.errors import DataError
from core.progress import Silent
from core.sections import DataSettings, PathSettings
from core.settings import Settings
from training.data.stage import build_dataset

NOW = datetime(2025, 1, 1, tzinfo=UTC)
HEADER = "user_id,item_id,timestamp,value\n"
TEN = [f"u{n % 4},i{n},{100 + n},{n % 5 + 1}" for n in range(10)]
"""Ten good events."""


class Told(Silent):
    """Keeps the lines that a stage says."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def settings_for(var: Path, **data: object) -> Settings:
    """Settings with source=files unless told otherwise, strict about bad rows."""
    section = {"source": "files", "max_bad_share": 0.0, **data}
    return Settings(paths=PathSettings(var=var), data=DataSettings.model_validate(section))


def write_events(folder: Path, rows: list[str], header: str = HEADER, name: str = "events.csv") -> Path:
    """Writes events as CSV, gzipped where the name says so."""
    path = folder / name
    content = (header + "".join(f"{row}\n" for row in rows)).encode()
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return path


def build(folder: Path, events: Path, **data: object) -> Artifact:
    """Builds a dataset from a file of events."""
    return build_dataset(settings_for(folder / "var", events=events, **data), now=lambda: NOW)


def refusal(folder: Path, events: Path, **data: object) -> DataError:
    """The error that building raises; nothing may be left behind."""
    before = set((folder / "var").rglob("*.parquet"))
    with pytest.raises(DataError) as caught:
        build(folder, events, **data)
    assert set((folder / "var").rglob("*.parquet")) == before
    return caught.value

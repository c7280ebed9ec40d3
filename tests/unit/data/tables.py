"""Small files for tests of the dataset stage."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from core.artifacts import Artifact
from core.dataset import EVENTS, Events, load_dataset
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
    """Builds a dataset from a file of events; the way for events larger than memory must give the same."""
    artifact = _build(folder / "var", events, **data)
    assert_same_dataset(artifact, _build(folder / "large", events, out_of_core_events=0, **data))
    return artifact


def refusal(folder: Path, events: Path, **data: object) -> DataError:
    """The error that building raises, either way; nothing may be left behind."""
    before = set(_payloads(folder))
    with pytest.raises(DataError) as caught:
        _build(folder / "var", events, **data)
    with pytest.raises(DataError) as large:
        _build(folder / "large", events, out_of_core_events=0, **data)
    assert str(large.value) == str(caught.value)
    assert set(_payloads(folder)) == before
    return caught.value


def assert_same_dataset(one: Artifact, other: Artifact) -> None:
    """Equal events, to the bit, and equal bytes of all other files that do not tell when and how they were made."""
    mine, theirs = load_dataset(one).events, load_dataset(other).events
    assert theirs.is_mapped
    for name in (field.name for field in fields(Events)):
        ours, large = getattr(mine, name), getattr(theirs, name)
        assert ours.dtype == large.dtype
        np.testing.assert_array_equal(ours, large, err_msg=name)
    names = [record.path for record in one.manifest.files if record.path not in (EVENTS, "report.json")]
    for name in names:
        assert one.file(name).read_bytes() == other.file(name).read_bytes(), name
    assert one.manifest.tensors == other.manifest.tensors
    assert one.manifest.metrics == other.manifest.metrics


def _build(var: Path, events: Path, **data: object) -> Artifact:
    artifact = build_dataset(settings_for(var, events=events, **data), now=lambda: NOW)
    assert not [path for path in (var / "spill").iterdir() if path.is_dir()]
    return artifact


def _payloads(folder: Path) -> Iterator[Path]:
    """What building could leave behind."""
    for var in (folder / "var", folder / "large"):
        yield from var.rglob("*.parquet")
        yield from var.rglob("*.npy")

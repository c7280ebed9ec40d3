"""Folders of gates that were killed hard go at the next gate; those of running ones stay."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from pipeline.gate.served import FOLDERS, sweep_folders


def test_only_folders_of_gates_that_are_gone_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    dead, ours, odd = (tmp_path / f"{FOLDERS}{name}" for name in (f"{gone.pid}-a", f"{os.getpid()}-b", "x-c"))
    for folder in (dead, ours, odd):
        (folder / "challenger").mkdir(parents=True)
    sweep_folders()
    assert [folder.exists() for folder in (dead, ours, odd)] == [False, True, True]

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bench.environments import BORROW, EnvironmentFailedError, ensure


def ran(python: Path, code: str) -> bool:
    return subprocess.run([str(python), "-c", code], capture_output=True).returncode == 0


def test_no_name_is_this_projects_own_environment(tmp_path: Path) -> None:
    assert ensure(None, tmp_path).python == Path(sys.executable)


def test_environment_sees_this_projects_packages_only_when_it_borrows(tmp_path: Path) -> None:
    (tmp_path / "alone.txt").write_text("", encoding="utf-8")
    (tmp_path / "borrower.txt").write_text(f"{BORROW}\n", encoding="utf-8")
    alone, borrower = (ensure(name, tmp_path / "envs", requirements=tmp_path) for name in ("alone", "borrower"))
    assert not ran(alone.python, "import numpy")
    assert ran(borrower.python, "import numpy")


def test_environment_is_made_once_and_again_when_its_requirements_change(tmp_path: Path) -> None:
    file = tmp_path / "one.txt"
    file.write_text("", encoding="utf-8")
    mark = ensure("one", tmp_path / "envs", requirements=tmp_path).python.parent.parent / "mark"
    mark.touch()
    ensure("one", tmp_path / "envs", requirements=tmp_path)
    assert mark.exists()
    file.write_text("# changed\n", encoding="utf-8")
    ensure("one", tmp_path / "envs", requirements=tmp_path)
    assert not mark.exists()


def test_missing_requirements_are_told(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFailedError, match="gone"):
        ensure("gone", tmp_path)

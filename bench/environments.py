"""Environments of the peers' own: a virtual environment per requirements file, made once."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from bench.process import environment, run_child
from core.settings import ROOT

REQUIREMENTS = ROOT / "bench" / "peers"
INSTALL_TIMEOUT_SECONDS = 1_200
BORROW = "# borrow: torch"
"""A line that lets an environment see this project's packages behind its own: torch is too big to have twice."""


class EnvironmentFailedError(Exception):
    """A peer's environment could not be made; its text is the reason."""


@dataclass(frozen=True)
class PeerEnvironment:
    """A ready environment.

    Attributes:
        python: Its interpreter.
        digest: sha256 of the requirements that it was made from.
    """

    python: Path
    digest: str


def ensure(name: str | None, folder: Path, *, requirements: Path = REQUIREMENTS) -> PeerEnvironment:
    """The interpreter of an environment, made on first use and remade when its requirements change.

    Args:
        name: ``<name>.txt`` in ``requirements``; None is this project's own environment.
        folder: Where environments lie.
        requirements: Folder of pinned requirements files. They name every package: pip resolves nothing.

    Raises:
        EnvironmentFailedError: No such file, or pip failed.
    """
    if name is None:
        return PeerEnvironment(Path(sys.executable), "project")
    file = requirements / f"{name}.txt"
    if not file.is_file():
        raise EnvironmentFailedError(f"no requirements file {file.name}")
    text = file.read_text(encoding="utf-8")
    digest = hashlib.sha256(text.encode()).hexdigest()
    target, marker = folder / name, folder / name / "made-from"
    python = target / "bin" / "python"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f".{name}.lock"):
        if not (marker.is_file() and marker.read_text(encoding="utf-8") == digest and _works(python)):
            _make(name, target, file, borrow=BORROW in text.splitlines())
            marker.write_text(digest, encoding="utf-8")
    return PeerEnvironment(python, digest)


def _works(python: Path) -> bool:
    return python.is_file() and subprocess.run([str(python), "-c", ""], capture_output=True).returncode == 0


def _make(name: str, target: Path, file: Path, *, borrow: bool) -> None:
    log = target.with_name(f"{name}.log")
    steps = [
        [sys.executable, "-m", "venv", "--clear", "--without-pip", str(target)],
        [sys.executable, "-m", "pip", "--python", str(target), "install", "--quiet", "--no-deps", "-r", str(file)],
    ]
    for step in steps:
        done = run_child(step, env=environment(1), timeout_seconds=INSTALL_TIMEOUT_SECONDS, log=log)
        if done.code:
            raise EnvironmentFailedError(f"environment {name}: {done.reason}")
    if borrow:
        own = Path(sysconfig.get_path("purelib", vars={"base": str(target)}))
        (own / "zz-project.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")

"""Folders for what does not fit memory: removed after use, and after a crash by whoever spills next."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

LOCK = "owner.lock"
"""Held, by the kernel, as long as the folder's owner lives."""


def spill_root(var: Path) -> Path:
    """Where spill folders lie."""
    return var / "spill"


@contextmanager
def spill_folder(var: Path) -> Iterator[Path]:
    """An empty folder of one's own under ``var``; those of processes that have ended are removed first."""
    root = spill_root(var)
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / LOCK):
        _remove_abandoned(root)
        folder = Path(tempfile.mkdtemp(dir=root))
        own = FileLock(folder / LOCK)
        own.acquire()
    try:
        yield folder
    finally:
        own.release()
        shutil.rmtree(folder, ignore_errors=True)


def remove_abandoned(var: Path) -> None:
    """Removes the spill folders of processes that have ended."""
    root = spill_root(var)
    if root.is_dir():
        with FileLock(root / LOCK):
            _remove_abandoned(root)


def _remove_abandoned(root: Path) -> None:
    for folder in (path for path in root.iterdir() if path.is_dir()):
        try:
            with FileLock(folder / LOCK, blocking=False):
                shutil.rmtree(folder, ignore_errors=True)
        except Timeout:
            continue  # its owner lives

"""Checksums inside a version folder: Triton loads a truncated ``model.py`` as long as it parses, so steps check their
own files. Standard library only: the onnxruntime backend imports this too.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

SUMS_FILE = "MANIFEST.sha256"
COMPILED = "__pycache__"


def write_sums(folder: Path) -> None:
    """Writes ``folder/MANIFEST.sha256`` over the files in it, as ``sha256sum`` would."""
    lines = [f"{_digest(path)}  {path.name}\n" for path in _files(folder)]
    (folder / SUMS_FILE).write_text("".join(lines), encoding="utf-8")


def check_sums(folder: Path) -> None:
    """Checks a version folder against its checksums; one without them was not published, and is taken as it is.

    Raises:
        ValueError: A file that is missing, that is not listed, or that differs.
    """
    if not (folder / SUMS_FILE).is_file():
        return
    lines = (folder / SUMS_FILE).read_text(encoding="utf-8").splitlines()
    wanted = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    found = {path.name: _digest(path) for path in _files(folder)}
    for name in sorted(wanted.keys() | found.keys()):
        if wanted.get(name) != found.get(name):
            raise ValueError(f"{folder / name} differs from {SUMS_FILE}: {wanted.get(name)} != {found.get(name)}")


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file() and path.name != SUMS_FILE)


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()

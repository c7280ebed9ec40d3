"""Artefacts: immutable folders that stages hand to each other.

``var/artifacts/<kind>/<run_id>/`` is built under a temporary name; ``manifest.json`` is written last, then the
folder is renamed. A folder without a manifest, or under a temporary name, never counts.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import secrets
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from core.errors import ArtifactError
from core.manifest import FileRecord, Manifest

MANIFEST = "manifest.json"
TEMPORARY = ".tmp-"
PAYLOADS = {
    ".parquet",
    ".npz",
    ".npy",
    ".safetensors",
    ".onnx",
    ".plan",
    ".json",
    ".sqlite",
    ".pbtxt",
    ".py",
    ".md",
    ".html",
}
"""Allowed file kinds. Never pickle, joblib or .pt: loading those runs code."""

NEXT_COMMAND = {
    "dataset": "conch dataset",
    "mf": "conch train",
    "gat": "conch train",
    "ranker": "conch train",
    "content": "conch train",
    "rating": "conch train rating",
    "compressed": "conch compress",
    "graphs": "conch export",
    "plans": "conch export --target tensorrt",
    "release": "conch run",
}


@dataclass(frozen=True)
class Artifact:
    """A finished artefact on disk."""

    path: Path
    manifest: Manifest

    def has(self, name: str) -> bool:
        """Whether the manifest lists a payload file."""
        return any(record.path == name for record in self.manifest.files)

    def file(self, name: str) -> Path:
        """Path of a payload file. Raises ArtifactError when the manifest does not list it."""
        if not self.has(name):
            raise ArtifactError(
                f"artefact has no file {name}",
                where=str(self.path),
                found=", ".join(record.path for record in self.manifest.files),
            )
        return self.path / name

    def verify(self) -> None:
        """Checks every payload against the manifest. Raises ArtifactError at the first difference."""
        for record in self.manifest.files:
            path = self.path / record.path
            found = sha256_of(path) if path.is_file() else "no such file"
            if found != record.sha256:
                raise ArtifactError(
                    "artefact differs from its manifest",
                    where=str(path),
                    expected=f"sha256 {record.sha256}",
                    found=found,
                    next_step=f"delete {self.path} and run `{NEXT_COMMAND.get(self.manifest.kind, 'conch run')}`",
                )


@dataclass
class Draft:
    """An artefact being built: write files under ``path``, fill in the facts."""

    path: Path
    created: datetime
    tensors: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    artifact: Artifact | None = None
    """Set once the artefact is complete."""

    def finished(self) -> Artifact:
        """The complete artefact, after the ``with`` block."""
        if self.artifact is None:
            raise ArtifactError("artefact is not complete yet", where=str(self.path))
        return self.artifact


@contextmanager
def create_artifact(
    var: Path,
    kind: str,
    *,
    settings: dict[str, Any],
    seed: int = 0,
    parents: tuple[Artifact, ...] = (),
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Iterator[Draft]:
    """Builds an artefact: yields a draft folder, seals it on success, removes it on failure.

    Args:
        var: ``paths.var``.
        kind: dataset, mf, gat, ranker, rating, compressed, graphs, release.
        settings: The settings sections used, as plain JSON values.
        seed: Seed that made it.
        parents: Artefacts that it was made from.
        now: Clock.
    """
    created = now()
    run_id = f"{created:%Y%m%dT%H%M%S}{created.microsecond // 1000:03d}-{secrets.token_hex(3)}"
    folder = var / "artifacts" / kind
    draft = Draft(folder / f"{TEMPORARY}{run_id}", created)
    draft.path.mkdir(parents=True)
    started = time.perf_counter()
    try:
        yield draft
        manifest = Manifest(
            kind=kind,
            run_id=run_id,
            created=created,
            code_commit=code_commit(),
            parents={parent.manifest.kind: parent.manifest.digest() for parent in parents},
            settings=settings,
            seed=seed,
            seconds=round(time.perf_counter() - started, 3),
            files=tuple(_record(draft.path, path) for path in sorted(draft.path.rglob("*")) if path.is_file()),
            tensors=draft.tensors,
            metrics=draft.metrics,
            environment=environment(),
        )
        _write_synced(draft.path / MANIFEST, manifest.to_json())
        final = folder / run_id
        os.rename(draft.path, final)
        sync_folder(folder)
    except BaseException:
        shutil.rmtree(draft.path, ignore_errors=True)
        raise
    draft.artifact = Artifact(final, manifest)
    draft.path = final


def load_artifact(path: Path) -> Artifact:
    """Reads a finished artefact. Raises ArtifactError where the folder is not one."""
    file = path / MANIFEST
    try:
        return Artifact(path, Manifest.model_validate_json(file.read_bytes()))
    except FileNotFoundError:
        raise ArtifactError("no artefact here", where=str(path), expected=f"a folder with {MANIFEST}") from None
    except ValidationError as error:
        raise ArtifactError("manifest cannot be read", where=str(file), found=str(error.errors()[0]["msg"])) from None


def latest_artifact(var: Path, kind: str) -> Artifact:
    """The newest finished artefact of a kind. Raises ArtifactError that names the command when there is none."""
    folder = var / "artifacts" / kind
    runs = sorted(path for path in folder.glob("[0-9]*") if (path / MANIFEST).is_file()) if folder.is_dir() else []
    if not runs:
        raise ArtifactError(
            f"no {kind} artefact yet",
            where=str(folder),
            next_step=f"run `{NEXT_COMMAND.get(kind, 'conch run')}` with the same --set options",
        )
    return load_artifact(runs[-1])


def parent_artifact(child: Artifact, var: Path, kind: str) -> Artifact:
    """The parent of ``child`` by its recorded hash, however many newer ones there are.

    Raises:
        ArtifactError: The parent is gone.
    """
    wanted = child.manifest.parents.get(kind)
    folder = var / "artifacts" / kind
    for path in sorted(folder.glob("[0-9]*"), reverse=True):
        if (path / MANIFEST).is_file() and sha256_of(path / MANIFEST) == wanted:
            return load_artifact(path)
    raise ArtifactError(
        f"the {kind} artefact behind this {child.manifest.kind} is gone",
        where=str(folder),
        expected=f"manifest sha256 {wanted}",
        next_step=f"run `{NEXT_COMMAND.get(kind, 'conch run')}` again",
    )


def sha256_of(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_json(path: Path, value: Any) -> None:
    """Writes JSON for people and programs: indented, keys in the given order, newline at the end."""
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False, default=str) + "\n", encoding="utf-8")


@cache
def code_commit() -> str:
    """Git commit of the code with ``+dirty`` where it was changed; ``unknown`` outside a checkout."""
    root = Path(__file__).resolve().parent.parent
    try:
        run = lambda *args: subprocess.run(  # noqa: E731
            ["git", "-C", str(root), *args], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()
        return run("rev-parse", "HEAD") + ("+dirty" if run("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"


@cache
def environment() -> dict[str, str]:
    """Versions that decide what a run computes."""
    names = ("numpy", "torch", "torch-geometric", "onnx", "onnxruntime", "numba", "pyarrow", "duckdb")
    found = {"python": platform.python_version(), "machine": platform.machine(), "cpus": str(os.cpu_count())}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _record(root: Path, path: Path) -> FileRecord:
    if path.suffix not in PAYLOADS or path.is_symlink():
        raise ArtifactError(
            "file kind not allowed in an artefact", where=str(path), expected=", ".join(sorted(PAYLOADS))
        )
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
    return FileRecord(path=path.relative_to(root).as_posix(), sha256=sha256_of(path), size_bytes=path.stat().st_size)


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def replace_file(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Writes a file so that readers and crashes see the old or the new content, never less.

    Args:
        path: Its folder is made where it is missing.
        data: The new content.
        durable: It also survives a power cut.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{TEMPORARY}{secrets.token_hex(4)}-{path.name}")
    try:
        if durable:
            _write_synced(temporary, data)
        else:
            temporary.write_bytes(data)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Makes renames inside a folder survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

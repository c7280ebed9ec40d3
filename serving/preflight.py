"""Checks before a release may come near Triton: whose word it carries, and that its files are what they say."""

from __future__ import annotations

import shutil
from datetime import datetime
from pathlib import Path

from core.artifacts import MANIFEST, load_artifact, sha256_of
from core.errors import PublishError, ReleaseError
from core.feedback_keys import keys_folder
from serving.blessing import blessing_file, load_public_keys, read_blessing, verify
from serving.lint import lint_repository
from serving.release import GRAPH_FILE, RELEASE_FILE, REPOSITORY, STEP_FILE, ReleaseInfo, read_release

SUFFIXES = {".json", ".pbtxt", ".onnx", ".py", ".parquet", ".sqlite", ".npz", ".pyc", ".plan"}
"""Kinds of file in a release. Never pickle, joblib or .pt: loading those runs code."""
SHARED_MEMORY = Path("/dev/shm")
STEP_SHARED_BYTES = 4 << 20
"""Shared memory that Triton takes for one process of a python step, with room."""


def check_release(release: Path, *, blessed_in: Path | None, now: datetime) -> tuple[ReleaseInfo, str]:
    """Checks everything that can be checked about a release without loading it.

    Args:
        release: Folder of the release artefact.
        blessed_in: ``paths.var``, whose blessing and keys count; None for an operator who answers for it.
        now: With time zone.

    Returns:
        What it is, and the sha256 of its manifest ("" where it has none, which only an operator may publish).

    Raises:
        BlessingError: No valid blessing for these very files.
        ArtifactError: A file differs from the manifest.
        ReleaseError: A file, name, link or graph that must not come near the server.
    """
    info = read_release(release)
    manifest = release / MANIFEST
    digest = sha256_of(manifest) if manifest.is_file() else ""
    if blessed_in is not None:
        blessing = read_blessing(blessing_file(blessed_in, info.release_id))
        verify(blessing, load_public_keys(keys_folder(blessed_in)), info.release_id, digest, now)
    _check_files(release)
    if digest:
        _check_manifest(release)
    lint_repository(release / REPOSITORY)
    return info, digest


def check_space(release: Path, repository: Path) -> None:
    """Refuses where the disk has no room for the release twice, or shared memory none for its processes.

    Raises:
        PublishError: Too little room; nothing was changed.
    """
    needed = 2 * sum(path.stat().st_size for path in release.rglob("*") if path.is_file())
    repository.parent.mkdir(parents=True, exist_ok=True)
    steps = sum(1 for _ in (release / REPOSITORY).rglob(STEP_FILE))
    graphs = sum(1 for _ in (release / REPOSITORY).rglob(GRAPH_FILE))
    _need(repository.parent, needed)
    if SHARED_MEMORY.is_dir():
        _need(SHARED_MEMORY, (steps + graphs) * STEP_SHARED_BYTES)


def _check_files(release: Path) -> None:
    root = release.resolve()
    for path in release.rglob("*"):
        if path.is_symlink() or not path.resolve().is_relative_to(root):
            raise ReleaseError("link in a release", where=str(path), expected="plain files")
        if path.is_dir():
            continue
        if not path.is_file() or path.stat().st_nlink != 1:
            raise ReleaseError(
                "file has another name elsewhere", where=str(path), expected="plain files without hard links"
            )
        if path.suffix not in SUFFIXES:
            raise ReleaseError(
                "file kind not allowed in a release", where=str(path), expected=", ".join(sorted(SUFFIXES))
            )


def _check_manifest(release: Path) -> None:
    artifact = load_artifact(release)
    artifact.verify()
    listed = {record.path for record in artifact.manifest.files}
    found = {path.relative_to(release).as_posix() for path in (release / REPOSITORY).rglob("*") if path.is_file()}
    strays = sorted((found | {RELEASE_FILE}) - listed)
    if strays:
        raise ReleaseError("file that the manifest does not list", where=str(release), found=", ".join(strays[:5]))


def _need(folder: Path, wanted: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < wanted:
        raise PublishError(
            "too little room", where=str(folder), expected=f"{wanted / 1e6:,.0f} MB free",
            found=f"{free / 1e6:,.0f} MB", next_step="make room, then `conch activate` again",
        )  # fmt: skip

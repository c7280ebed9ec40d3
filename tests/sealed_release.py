"""Synthetic releases as the release stage leaves them, an artefact with golden requests; and their blessing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from core.artifacts import Artifact, create_artifact, sha256_of
from core.feedback_keys import keys_folder
from serving.blessing import Blessing, load_private_key, sign, write_blessing
from serving.golden import record_golden
from tests.synthetic_release import SMALL, Shape, write_synthetic_release


def seal_release(
    var: Path, version: int, *, shape: Shape = SMALL, blessed: bool = True, extras: tuple[str, ...] = ("similar_items",)
) -> Artifact:
    """Makes a release artefact under ``var``; its answers differ from those of every other version."""
    with create_artifact(var, "release", settings={}) as draft:
        write_synthetic_release(draft.path, version=version, seed=version, shape=shape, extras=extras)
        record_golden(draft.path, ["u0", "u1", "u5", "nobody"], ["ítem-3"], k=5)
        draft.tensors |= {"version": version, "release_id": f"r{version:06d}"}
    artifact = draft.finished()
    if blessed:
        bless(var, artifact, f"r{version:06d}")
    return artifact


def bless(var: Path, artifact: Artifact, release_id: str, days: float = 1) -> None:
    """What the gate does with a release that passed."""
    now = datetime.now(UTC)
    blessing = Blessing(
        release_id=release_id,
        manifest_sha256=sha256_of(artifact.path / "manifest.json"),
        report_sha256="00" * 32,
        created=now - timedelta(hours=1),
        expires=now + timedelta(days=days),
    )
    write_blessing(var, sign(blessing, load_private_key(keys_folder(var))))

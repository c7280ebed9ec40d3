"""Compressed models as an artefact: one safetensors file per step, and in the manifest how to read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from compression.candidate import Candidate
from compression.registry import restore
from core.artifacts import MANIFEST, Artifact, load_artifact
from core.errors import ArtifactError

KIND = "compressed"


def save_candidates(chosen: Sequence[Candidate], folder: Path) -> dict[str, Any]:
    """Writes one file per step into ``folder``; gives back what belongs into the manifest's ``tensors``."""
    return {"steps": {one.step: save_candidate(one, folder) for one in chosen}}


def save_candidate(candidate: Candidate, folder: Path) -> dict[str, Any]:
    """Writes ``<step>.safetensors``; gives back the facts that read it."""
    tensors = {name: one.tensor.cpu().contiguous() for name, one in candidate.stored.items()}
    save_file(tensors, folder / f"{candidate.step}.safetensors")
    return {
        "name": candidate.name,
        "compressor": candidate.compressor,
        "facts": dict(candidate.facts),
        "passes": [asdict(one) for one in candidate.passes],
        "sizes": asdict(candidate.sizes),
    }


def load_modules(artifact: Artifact) -> dict[str, nn.Module]:
    """The compressed modules by step, on the CPU, in evaluation mode.

    Raises:
        ArtifactError: A file that does not fit its facts, or a compressor that this version does not have.
    """
    return {step: _load(artifact, step, told) for step, told in artifact.manifest.tensors["steps"].items()}


def _load(artifact: Artifact, step: str, told: Mapping[str, Any]) -> nn.Module:
    path = artifact.file(f"{step}.safetensors")
    tensors: dict[str, torch.Tensor] = load_file(path)
    try:
        return restore(told["compressor"], tensors, told["facts"])
    except (KeyError, RuntimeError, ValueError) as error:
        raise ArtifactError(
            "compressed weights do not fit their facts",
            where=str(path),
            found=str(error)[:500],
            next_step="run `conch compress` again",
        ) from None


def newest_of(ranker: Artifact, var: Path) -> Artifact | None:
    """The newest compressed models made from this very ranker (and so from its recall models); None without any."""
    folder = var / "artifacts" / KIND
    for path in sorted(folder.glob("[0-9]*"), reverse=True):
        if (path / MANIFEST).is_file():
            found = load_artifact(path)
            if found.manifest.parents.get("ranker") == ranker.manifest.digest():
                return found
    return None


def compressed_of(ranker: Artifact, var: Path) -> Artifact:
    """As :func:`newest_of`. Raises ArtifactError where there is none: fp32 never takes its place silently."""
    found = newest_of(ranker, var)
    if found is None:
        raise ArtifactError(
            "the newest ranker has no compressed models",
            where=str(var / "artifacts" / KIND),
            expected=f"one made from {ranker.path.name}",
            next_step="run `conch compress`, or export the originals with --set compress.enabled=false",
        )
    return found

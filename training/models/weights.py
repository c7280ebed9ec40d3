"""Reading weights: a file that is altered, cut short or holds NaN is refused by name before a model is built."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from core.artifacts import Artifact
from core.errors import ArtifactError


def read_weights(artifact: Artifact, name: str) -> dict[str, torch.Tensor]:
    """Tensors of one file of an artefact, on the CPU.

    Raises:
        ArtifactError: The files differ from the manifest, or see :func:`read_tensors`.
    """
    path = artifact.file(name)
    artifact.verify()
    return read_tensors(path)


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Tensors of a safetensors file, on the CPU.

    Raises:
        ArtifactError: Not such a file, one that ends early, or weights that are not finite.
    """
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ArtifactError("weights cannot be read", where=str(path), found=str(error)[:200]) from None
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ArtifactError(
                "weights are not finite",
                where=f"{path}, tensor {name}",
                expected="numbers",
                found=f"{int((~torch.isfinite(tensor)).sum())} of {tensor.numel()} NaN or infinite",
                next_step="train the model again",
            )
    return tensors

"""Recall models as files: what the stages import."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from core.artifacts import Artifact
from core.errors import ArtifactError
from training.models.ease_model import EaseRecall
from training.models.gat_model import GatRecall
from training.models.mf_model import MfRecall
from training.models.mix_model import MixRecall
from training.models.newcomers import Newcomers
from training.models.recall_base import RecallModel
from training.models.spectral_model import SpectralRecall
from training.models.weights import read_tensors

__all__ = ["RecallModel", "build_model", "load_model", "restore_model", "save_model"]

WEIGHTS = "model.safetensors"
MODELS: dict[str, type[RecallModel]] = {
    model.kind: model for model in (MfRecall, GatRecall, SpectralRecall, EaseRecall, MixRecall)
}


def save_model(model: RecallModel, folder: Path) -> dict[str, Any]:
    """Writes the weights into ``folder``; gives back the facts that belong into the manifest's ``tensors``."""
    save_file({name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}, folder / WEIGHTS)
    return {
        "model": model.kind,
        "n_items": model.n_items,
        "dimension": model.dimension,
        "candidates": model.candidates,
        **model.facts(),
    }


def restore_model(folder: Path, facts: dict[str, Any]) -> RecallModel:
    """The model that ``save_model`` wrote, on the CPU, in evaluation mode.

    Raises:
        ArtifactError: The facts name no recall model, or do not fit the weights; or these cannot be used.
    """
    kind = facts.get("model")
    if kind not in MODELS:
        raise ArtifactError("not a recall model", where=str(folder), expected=" or ".join(MODELS), found=str(kind))
    model = build_model(read_tensors(folder / WEIGHTS), facts)
    for name in ("n_items", "dimension"):
        if getattr(model, name) != facts[name]:
            raise ArtifactError(
                f"weights and manifest disagree about {name}",
                where=str(folder / WEIGHTS),
                expected=str(facts[name]),
                found=str(getattr(model, name)),
            )
    return model


def build_model(tensors: dict[str, torch.Tensor], facts: dict[str, Any]) -> RecallModel:
    """The model of kind ``facts["model"]`` from its tensors and facts, in evaluation mode."""
    model = MODELS[facts["model"]].from_tensors(tensors, facts)
    if "newcomers.vectors" in tensors:
        model.newcomers = Newcomers(tensors["newcomers.vectors"], tensors["newcomers.offsets"])
    return model.eval()


def load_model(artifact: Artifact) -> RecallModel:
    """The recall model of an artefact. Raises ArtifactError where it holds none, or its files were altered."""
    artifact.verify()
    return restore_model(artifact.file(WEIGHTS).parent, artifact.manifest.tensors)

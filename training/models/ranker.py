"""The ranker's public face: the module, and rankers on disk as safetensors beside plain facts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from core.artifacts import Artifact
from core.errors import ArtifactError
from training.models.ranker_features import ItemTables
from training.models.ranker_module import Ranker
from training.models.ranker_shape import RankerShape
from training.models.weights import read_tensors
from training.ratings.model import ValuePosterior

__all__ = ["ItemTables", "Ranker", "RankerShape", "load_ranker", "restore_ranker", "save_ranker"]

WEIGHTS = "model.safetensors"
RATING = "tables.rating."
"""Prefix of the rating model's weights."""


def save_ranker(model: Ranker, folder: Path) -> dict[str, Any]:
    """Writes ``model.safetensors`` into ``folder``; gives back the facts for the manifest's ``tensors``."""
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, folder / WEIGHTS)
    return {"shape": model.shape.to_facts()}


def load_ranker(artifact: Artifact) -> Ranker:
    """The ranker of an artefact. Raises ArtifactError as :func:`restore_ranker`, or where its files were altered."""
    artifact.verify()
    return restore_ranker(artifact.file(WEIGHTS).parent, artifact.manifest.tensors)


def restore_ranker(folder: Path, facts: dict[str, Any]) -> Ranker:
    """Reads what ``save_ranker`` wrote, in evaluation mode.

    Raises:
        ArtifactError: The weights do not fit the recorded shape, or are not finite.
    """
    shape = RankerShape.from_facts(facts["shape"])
    path = folder / WEIGHTS
    weights = read_tensors(path)
    rating = None
    if shape.rating is not None:
        of_rating = {name: tensor for name, tensor in weights.items() if name.startswith(RATING)}
        rating = ValuePosterior.from_tensors(
            {name.removeprefix(RATING): tensor for name, tensor in of_rating.items()}, shape.rating
        )
    model = Ranker(shape, ItemTables.empty(shape, rating))
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise ArtifactError(
            "ranker weights do not fit their recorded shape", where=str(path), found=str(error).splitlines()[-1].strip()
        ) from None
    return model.eval()

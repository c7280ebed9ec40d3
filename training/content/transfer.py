"""A trained tower as an artefact, and as a start for another catalogue."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from core.artifacts import Artifact, load_artifact
from core.codebook import Codebook, ColumnCodes
from core.errors import ArtifactError
from core.features import UNKNOWN
from core.sections import ContentSettings
from training.content.inputs import ContentInputs
from training.content.lessons import Lessons
from training.content.text import NgramEncoder
from training.content.tower import ContentTower
from training.models.weights import read_weights

WEIGHTS = "content.safetensors"
CODES = "item_codes.json"
ENCODER = "encoder."


@dataclass(frozen=True)
class Start:
    """What a tower learned, without the catalogue it learned from.

    Attributes:
        weights: The tower's tensors by name.
        codebook: The values that its embeddings stand for.
        encoder: Its text encoder, if it read n-grams.
    """

    weights: dict[str, Tensor]
    codebook: Codebook
    encoder: NgramEncoder | None


def save_tower(tower: ContentTower, inputs: ContentInputs, folder: Path) -> dict[str, Any]:
    """Writes weights and values into ``folder``; gives back the facts for the manifest."""
    tensors = {name: tensor.detach().contiguous() for name, tensor in tower.state_dict().items()}
    if inputs.encoder is not None:
        tensors[f"{ENCODER}weights"] = torch.from_numpy(inputs.encoder.weights)
        tensors[f"{ENCODER}projection"] = torch.from_numpy(inputs.encoder.projection)
    save_file(tensors, folder / WEIGHTS)
    inputs.codebook.save(folder / CODES)
    blocks = {name: block.vectors.shape[1] for name, block in inputs.blocks.items()}
    return {"dimension": tower.values.shape[1], "blocks": blocks, "ngrams": inputs.encoder is not None}


def configured_start(settings: ContentSettings) -> Start | None:
    """The tower that ``content.start`` names. Raises ArtifactError where the folder holds none."""
    return load_start(load_artifact(settings.start)) if settings.start else None


def load_start(artifact: Artifact) -> Start:
    """Reads a content artefact. Raises ArtifactError where it is another kind."""
    if artifact.manifest.kind != "content":
        raise ArtifactError(
            "not a content artefact", where=str(artifact.path), expected="content", found=artifact.manifest.kind
        )
    tensors = read_weights(artifact, WEIGHTS)
    encoder = None
    if f"{ENCODER}weights" in tensors:
        encoder = NgramEncoder(
            np.asarray(tensors.pop(f"{ENCODER}weights")), np.asarray(tensors.pop(f"{ENCODER}projection"))
        )
    return Start(tensors, Codebook.load(artifact.file(CODES)), encoder)


def started_tower(start: Start, inputs: ContentInputs, lessons: Lessons, settings: ContentSettings) -> ContentTower:
    """A fresh tower for ``inputs`` in which everything that both catalogues know has the start's values.

    Values carry over by the name of their attribute and their text, buckets of numbers by their middle, blocks by
    name and width. The head does not: it is solved anew, since the vectors of two fits are rotated.

    Raises:
        ArtifactError: The start has another content dimension.
    """
    if start.weights["values"].shape[1] != settings.dimension:
        raise ArtifactError(
            "the tower to start from has another width",
            where="content.start",
            expected=f"content.dimension={start.weights['values'].shape[1]}",
            found=str(settings.dimension),
        )
    heads = {name: table.shape[1] for name, table in lessons.tables.items()}
    tower = ContentTower(inputs, heads, settings.dimension, settings.dropout, torch.Generator().manual_seed(0))
    shared = list(_shared(inputs.codebook, start.codebook))
    with torch.no_grad():
        tower.values.mul_(0.1)  # values that the start does not know begin near nothing
        if shared:
            mine, other = (torch.tensor(column) for column in zip(*shared, strict=True))
            tower.values[mine] = start.weights["values"][other]
        for name, matrix in tower.projections.items():
            carried = start.weights.get(f"projections.{name}")
            if carried is not None and carried.shape == matrix.shape:
                matrix.copy_(carried)
        for name, gate in tower.gates.items():
            if f"gates.{name}" in start.weights:
                gate.copy_(start.weights[f"gates.{name}"])
    return tower


def _shared(ours: Codebook, theirs: Codebook) -> Iterator[tuple[int, int]]:
    """Rows of the embedding tables, ours and theirs, that stand for the same value of the same attribute."""
    first_of_theirs = _first_rows(theirs)
    by_name = {entry.column.name: entry for entry in theirs.columns}
    for entry, first in zip(ours.columns, _first_rows(ours).values(), strict=True):
        other = by_name.get(entry.column.name)
        if other is None:
            continue
        for code, text in enumerate(_texts(entry), start=1):
            known = max(other.encode(text))  # one value fills one slot, the others are UNKNOWN
            if known != UNKNOWN:
                yield first + code, first_of_theirs[other.column.name] + known


def _first_rows(codebook: Codebook) -> dict[str, int]:
    """Row before each attribute's first value; UNKNOWN, row 0, is shared."""
    sizes = [entry.column.cardinality - 1 for entry in codebook.columns]
    return {entry.column.name: sum(sizes[:place]) for place, entry in enumerate(codebook.columns)}


def _texts(entry: ColumnCodes) -> tuple[str, ...]:
    """A text for each code: the value itself, or a number in the bucket."""
    if entry.column.kind != "number":
        return entry.values
    edges = entry.edges
    inner = [str((low + high) / 2) for low, high in pairwise(edges)]
    return (str(edges[0] - 1e-6 * max(1.0, abs(edges[0]))), *inner, str(edges[-1])) if edges else ("0",)

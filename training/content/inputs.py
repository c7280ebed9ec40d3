"""The content of a catalogue as the tower's input: attribute codes, and one standardised block per dense modality."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from core.codebook import Codebook
from core.content import ItemContent
from core.dataset import Dataset
from core.features import FeatureColumn
from core.settings import Settings
from training.content.sentences import sentence_vectors
from training.content.text import NgramEncoder, fit_ngrams

TEXT_BLOCK = "text"


@dataclass(frozen=True)
class Block:
    """One dense modality of all items.

    Attributes:
        vectors: float32 ``(I, n)``, mean squared length 1 over the present rows; zero where missing.
        present: float32 ``(I, 1)``, 1 or 0.
    """

    vectors: Tensor
    present: Tensor


@dataclass(frozen=True)
class ContentInputs:
    """Everything that the tower reads.

    Attributes:
        codes: int64 ``(I, F)``; one UNKNOWN slot where there are no attributes.
        columns: The attributes in slot order.
        codebook: What the codes mean.
        blocks: Dense modalities by name.
        encoder: Where the text block comes from, for another catalogue's text; None for other kinds of text.
    """

    codes: Tensor
    columns: tuple[FeatureColumn, ...]
    codebook: Codebook
    blocks: dict[str, Block]
    encoder: NgramEncoder | None = None

    @property
    def known(self) -> Tensor:
        """bool ``(I,)``: items of which anything is known."""
        found = (self.codes > 0).any(1)
        for block in self.blocks.values():
            found = found | (block.present[:, 0] > 0)
        return found


def content_inputs(dataset: Dataset, settings: Settings, encoder: NgramEncoder | None = None) -> ContentInputs:
    """Reads a dataset's content.

    Args:
        dataset: Attributes, text and vectors of the items.
        settings: ``content.text``, ``content.text_dimension`` and ``paths.var``, where sentence vectors are kept.
        encoder: Encodes the text instead of one that is learned here: what a transferred tower was trained with.
    """
    codes = dataset.item_features.codes.astype(np.int64)
    if codes.shape[1] == 0:
        codes = np.zeros((dataset.n_items, 1), dtype=np.int64)
    content = dataset.item_content or ItemContent.none(dataset.n_items)
    blocks = {name: _block(block.vectors, block.present) for name, block in content.blocks.items()}
    texts = [str(text) for text in content.texts]
    has_text = np.array([bool(text) for text in texts])
    if settings.content.text == "ngrams" and has_text.any():
        encoder = encoder or fit_ngrams(texts, settings.content.text_dimension)
        blocks[TEXT_BLOCK] = _block(encoder.vectors(texts), has_text)
    elif settings.content.text == "minilm" and has_text.any():
        encoder = None
        blocks[TEXT_BLOCK] = _block(sentence_vectors(texts, settings.paths.var / "cache"), has_text)
    else:
        encoder = None
    return ContentInputs(torch.from_numpy(codes), dataset.item_features.columns, dataset.item_codebook, blocks, encoder)


def _block(vectors: np.ndarray, present: np.ndarray) -> Block:
    scale = float(np.sqrt(np.square(vectors[present]).sum(1).mean())) if present.any() else 0.0
    scaled = np.where(present[:, None], vectors / scale, 0.0) if scale > 0 else np.zeros_like(vectors)
    return Block(
        torch.from_numpy(np.ascontiguousarray(scaled, dtype=np.float32)),
        torch.from_numpy(present.astype(np.float32)[:, None]),
    )

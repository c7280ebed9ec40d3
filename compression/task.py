"""What a compressor is given, and what every compressor does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from compression.candidate import Candidate
from core.dataset import Dataset
from core.progress import SILENT, Progress
from core.settings import Settings


@dataclass(frozen=True)
class Task:
    """What a compressor works on.

    Attributes:
        step: Name of the served step.
        model: The trained module: a ``RecallModel``, or the ``Ranker``.
        dataset: What it was trained on.
        fit: Splits that it learned from.
        settings: All settings; ``settings.compress`` holds goal and seed.
        recall: Recall models by source that feed the ranker: those chosen before it, compressed or not; empty for
            recall steps.
        progress: Where bars and lines go.
    """

    step: str
    model: nn.Module
    dataset: Dataset
    fit: tuple[str, ...]
    settings: Settings
    recall: Mapping[str, nn.Module]
    progress: Progress = SILENT


class Compressor(Protocol):
    """Makes candidates of one kind of step."""

    def original(self, task: Task) -> Candidate:
        """The model as it is, every tensor in fp32: what all others are measured against."""
        ...

    def candidates(self, task: Task) -> Iterator[Candidate]:
        """Compressed models, mildest first; each differs from its parent."""
        ...

    def make(self, task: Task, name: str) -> Candidate:
        """The candidate of that name: what was chosen on judging models is made once more from the shipped ones."""
        ...

    def restore(self, tensors: Mapping[str, torch.Tensor], facts: Mapping[str, Any]) -> nn.Module:
        """The module of a candidate from what it was stored as."""
        ...

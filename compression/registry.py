"""Which compressor makes and restores the candidates of which step. Another one plugs in with one line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from compression.ranker.compressor import RankerCompressor
from compression.recall import RecallCompressor
from compression.task import Compressor, Task
from core.errors import ArtifactError
from core.tensors import RECALL_PREFIX

__all__ = ["COMPRESSORS", "Compressor", "Task", "compressor_of", "restore"]

COMPRESSORS: dict[str, Compressor] = {"recall": RecallCompressor(), "rank": RankerCompressor()}
"""By name: another one plugs in with one line."""


def compressor_of(step: str) -> str | None:
    """Name of the compressor of a step; None where there is none."""
    kind = RECALL_PREFIX.rstrip("_") if step.startswith(RECALL_PREFIX) else step
    return kind if kind in COMPRESSORS else None


def restore(name: str, tensors: Mapping[str, torch.Tensor], facts: Mapping[str, Any]) -> nn.Module:
    """The module that a compressor stored. Raises ArtifactError where there is no such compressor."""
    if name not in COMPRESSORS:
        raise ArtifactError("no such compressor", where=name, expected=" or ".join(COMPRESSORS), found=name)
    return COMPRESSORS[name].restore(tensors, facts).eval()

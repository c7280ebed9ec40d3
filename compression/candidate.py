"""What a compressor hands over: a model like the original's, the tensors that it is stored as, and how it came about.

A candidate is plain data beside one torch module. Search, report, artefact and export know nothing of how it was made.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import nn

from core.errors import CompressionError

TensorClass = Literal["tables", "dense", "scales", "codebooks", "columns"]
"""tables: one vector per item, user or value. dense: weights of layers. scales: scales and offsets of codes.
codebooks: values that codes stand for. columns: one number per item (biases) and other small change."""
Flavour = Literal["onnxruntime", "tensorrt"]
"""What a graph is emitted for: ONNX Runtime on CPUs, or standard operators that TensorRT takes."""


@dataclass(frozen=True)
class Pass:
    """One step of the way from the original to a candidate.

    Attributes:
        name: Such as ``rank``, ``int4-columns``, ``prune``, ``distil``.
        parameters: JSON-able.
        seconds: Wall time.
    """

    name: str
    parameters: Mapping[str, Any]
    seconds: float


@dataclass(frozen=True)
class Unchanged:
    """A layer or table that a pass was asked to change and left alone."""

    layer: str
    reason: str


@dataclass(frozen=True)
class Stored:
    """One tensor as it is stored.

    Attributes:
        tensor: Codes, scales or weights in the dtype of the file.
        kind: Its class in size accounts.
    """

    tensor: torch.Tensor
    kind: TensorClass

    @property
    def size_bytes(self) -> int:
        """Bytes in the file."""
        return self.tensor.numel() * self.tensor.element_size()


@dataclass(frozen=True)
class Sizes:
    """Bytes by tensor class, as stored."""

    tables: int = 0
    dense: int = 0
    scales: int = 0
    codebooks: int = 0
    columns: int = 0

    @classmethod
    def of(cls, stored: Mapping[str, Stored]) -> Sizes:
        """Sums over tensors."""
        totals: dict[str, int] = {}
        for one in stored.values():
            totals[one.kind] = totals.get(one.kind, 0) + one.size_bytes
        return cls(**totals)

    @property
    def total(self) -> int:
        """All bytes."""
        return self.tables + self.dense + self.scales + self.codebooks + self.columns

    @property
    def vectors(self) -> int:
        """What the tables cost in all: codes with their scales and codebooks."""
        return self.tables + self.scales + self.codebooks

    def __add__(self, other: Sizes) -> Sizes:
        return Sizes(**{name: getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__})


@dataclass(frozen=True)
class Candidate:
    """A compressed model of one served step.

    Attributes:
        step: The step's name: ``recall_mf``, …, ``rank``.
        name: Unique among the step's candidates, such as ``rank16-int8``; the original is ``fp32``.
        compressor: Name in ``compression.registry.COMPRESSORS``, which restores it from ``stored`` and ``facts``.
        module: Same ``forward`` as the original's module. Where it has a method ``served`` (see :class:`Served`), that
            gives what is exported.
        stored: The model as it is stored, by tensor name.
        facts: JSON-able; with ``stored`` all that ``restore`` needs.
        parent: Name of the candidate that it was made from; empty for the original.
        passes: From the original to this one, oldest first.
        unchanged: What was asked for and left alone.
    """

    step: str
    name: str
    compressor: str
    module: nn.Module
    stored: Mapping[str, Stored]
    facts: Mapping[str, Any]
    parent: str = ""
    passes: tuple[Pass, ...] = ()
    unchanged: tuple[Unchanged, ...] = ()
    metrics: Mapping[str, Any] = field(default_factory=dict)
    """What the compressor measured itself: energy kept, calibration error, loss of a fine-tune."""

    @property
    def sizes(self) -> Sizes:
        """Bytes as stored."""
        return Sizes.of(self.stored)

    @property
    def seconds(self) -> float:
        """What its passes took."""
        return math.fsum(one.seconds for one in self.passes)


@runtime_checkable
class Served(Protocol):
    """A module whose exported form differs from the one that it is evaluated with."""

    def served(self, flavour: Flavour) -> nn.Module:
        """The module to export: same ``forward``, integer tables inside."""
        ...


def served_form(module: nn.Module, flavour: Flavour) -> nn.Module:
    """What is exported for a flavour: the module's served form, or the module itself."""
    return module.served(flavour) if isinstance(module, Served) else module


def check_changed(before: Candidate, after: Candidate) -> Candidate:
    """``after``, if the pass that made it from ``before`` changed any tensor or fact.

    Raises:
        CompressionError: Every one is what it was: a pass that reports success and does nothing hides a mistake.
    """
    same = (
        before.facts == after.facts
        and before.stored.keys() == after.stored.keys()
        and all(
            before.stored[name].tensor.dtype == one.tensor.dtype and torch.equal(before.stored[name].tensor, one.tensor)
            for name, one in after.stored.items()
        )
    )
    if same:
        made = after.passes[-1].name if after.passes else after.name
        raise CompressionError(
            f"the pass {made} changed nothing in {after.step}",
            where=after.name,
            expected="at least one tensor of another dtype, shape or value",
            found="; ".join(f"{one.layer}: {one.reason}" for one in after.unchanged) or "all tensors as before",
            next_step="leave the pass out, or ask for smaller bits or rank",
        )
    return after

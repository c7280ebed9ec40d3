"""Which request sizes a plan is built for. Pure: the same answer on every machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from core.sections import TensorrtSettings
from core.tensors import StepSpec

SHORTEST_HISTORY = 16
"""Smallest bucket of histories and lists of excluded items, see ``core.histories``."""
LONGEST_QUESTION = 1024
"""Items of one request for ratings."""


@dataclass(frozen=True)
class Range:
    """Smallest, typical and largest size of one dynamic axis. Kernels are chosen for the typical one."""

    low: int
    typical: int
    high: int

    def __post_init__(self) -> None:
        if not 1 <= self.low <= self.typical <= self.high:
            raise ValueError(f"sizes out of order: {self.low}, {self.typical}, {self.high}")


@dataclass(frozen=True)
class InputProfile:
    """Shapes of one input: batch first."""

    name: str
    low: tuple[int, ...]
    typical: tuple[int, ...]
    high: tuple[int, ...]


def axis_ranges(settings: TensorrtSettings, max_batch: int) -> dict[str, Range]:
    """Range of every dynamic axis of ``core.tensors``."""
    history = Range(SHORTEST_HISTORY, settings.typical_history, settings.longest_history)
    return {
        "B": Range(1, min(settings.typical_batch, max_batch), max_batch),
        "L": history,
        "X": history,
        "Q": Range(1, 16, LONGEST_QUESTION),
    }


def step_profile(
    spec: StepSpec, sizes: Mapping[str, int], settings: TensorrtSettings, max_batch: int
) -> tuple[InputProfile, ...]:
    """Shapes of every input of a step.

    Args:
        spec: The step.
        sizes: The axes that its graph fixes: K, R, F.
        settings: Typical and longest sizes.
        max_batch: Largest batch.

    Raises:
        KeyError: An axis that is neither fixed nor dynamic.
    """
    ranges = {"B": axis_ranges(settings, max_batch)["B"]} | axis_ranges(settings, max_batch)
    profile = []
    for tensor in spec.inputs:
        axes = [_range(axis, sizes, ranges) for axis in ("B", *tensor.shape)]
        profile.append(
            InputProfile(
                tensor.name,
                tuple(axis.low for axis in axes),
                tuple(axis.typical for axis in axes),
                tuple(axis.high for axis in axes),
            )
        )
    return tuple(profile)


def as_facts(profile: tuple[InputProfile, ...]) -> list[dict[str, Any]]:
    """Plain values for plan.json."""
    return [{key: list(value) if key != "name" else value for key, value in asdict(one).items()} for one in profile]


def _range(axis: int | str, sizes: Mapping[str, int], ranges: Mapping[str, Range]) -> Range:
    size = axis if isinstance(axis, int) else sizes.get(axis)
    return Range(size, size, size) if size is not None else ranges[str(axis)]

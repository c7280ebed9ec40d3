"""What a search measures: settings in, figures out; whatever is tuned."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from core.settings import Settings

Report = Callable[[int, float], None]
"""Takes a step from 1 and the quality so far; raises where the trial is not worth going on."""


@dataclass(frozen=True)
class Measurement:
    """What settings are worth.

    Attributes:
        values: Objectives by name: quality, and where asked size_bytes, latency_ms.
        standard_error: Of the quality.
        details: Plain JSON values for the report.
        deviations: Share of each user in the quality's deviation ``(users,)``, the same users in every trial; the
            standard error is their root sum of squares, and so is that of a difference between two trials.
    """

    values: Mapping[str, float]
    standard_error: float = 0.0
    details: Mapping[str, Any] = field(default_factory=dict)
    deviations: np.ndarray | None = field(default=None, compare=False)


class Objective(Protocol):
    """Measures settings."""

    @property
    def scheme(self) -> str:
        """What is measured on, in a few words."""
        ...

    def anchor(self, baseline: Measurement) -> None:
        """Told once before the first trial: what the settings as they are measured."""
        ...

    def measure(self, values: Mapping[str, Any], report: Report) -> Measurement:
        """Measures the settings with ``values`` changed.

        Args:
            values: ``section.key`` to value; empty measures the settings as they are.
            report: Called with the quality so far.

        Raises:
            ConchError: These settings cannot be measured, for example training diverged.
        """
        ...


class Job(Protocol):
    """How a process comes by its objective; plain enough to be sent to it."""

    @property
    def model(self) -> str:
        """What is tuned."""
        ...

    @property
    def settings(self) -> Settings:
        """What trials change."""
        ...

    @property
    def metric(self) -> str:
        """What quality is."""
        ...

    @property
    def steps(self) -> int:
        """Most values that a trial reports."""
        ...

    def build(self) -> Objective:
        """The objective, in this process."""
        ...


def from_json(tree: Mapping[str, Any]) -> Measurement:
    """What :func:`as_json` told."""
    return Measurement(tree["values"], tree["standard_error"], tree["details"])


def as_json(found: Measurement) -> dict[str, Any]:
    """A measurement as plain JSON values, which the journal keeps."""
    return {"values": dict(found.values), "standard_error": found.standard_error, "details": dict(found.details)}

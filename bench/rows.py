"""One line of the result: who, with which settings, how good, how long."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

Say = Callable[[str], None]
"""Where one line of progress goes."""


@dataclass(frozen=True)
class Run:
    """One training of one seed.

    Attributes:
        seed: None for models without chance.
        lists_file: npz with ``lists`` int32 ``(Q, k)`` of item rows, -1 where short.
        seconds: Training time.
        peak_mb: Most memory of the process that trained.
        measured_at: UTC.
        commit: Of this code.
        facts: Further numbers, for example seconds per epoch.
    """

    seed: int | None
    lists_file: Path
    seconds: float
    peak_mb: float
    measured_at: str
    commit: str
    facts: dict[str, float] = field(default_factory=dict)

    def lists(self) -> np.ndarray:
        """int32 ``(Q, k)``."""
        with np.load(self.lists_file, allow_pickle=False) as data:
            lists: np.ndarray = data["lists"]
        return lists


@dataclass(frozen=True)
class Row:
    """All runs of one model, or why there are none.

    Attributes:
        name: Shown in the table.
        ours: True for a stage of Conch.
        runs: One per seed.
        settings: What was chosen on valid, or the settings files.
        tuning: The grid's size and the seconds it took.
        versions: Of the peer's packages.
        not_run: The reason, where it was not run.
        failed: It should have run.
    """

    name: str
    ours: bool
    runs: tuple[Run, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    tuning: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    not_run: str | None = None
    failed: bool = False


def missing(name: str, reason: str, *, ours: bool = False, failed: bool = True) -> Row:
    """A row without numbers."""
    return Row(name, ours, not_run=reason, failed=failed)

"""Kinds of events (click, favourite, purchase, …) and how much an event of each counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from core.errors import SettingsError

UNKNOWN = "unknown"
"""Name in settings of events without a kind; the items of a running session are such events."""


def kind_weights(kinds: Sequence[str], weights: Mapping[str, float]) -> np.ndarray:
    """Weight of each kind by code, float64 ``(kinds,)``; 1 where ``weights`` names none.

    Args:
        kinds: Names by code; "" is unknown, see ``core.dataset.Dataset.kinds``.
        weights: ``events.kind_weights``.

    Raises:
        SettingsError: A name that the data does not have.
    """
    check_kinds(kinds, weights, "events.kind_weights")
    return np.array([weights.get(kind or UNKNOWN, 1.0) for kind in kinds])


def check_kinds(kinds: Sequence[str], named: Mapping[str, float] | Sequence[str], where: str) -> None:
    """Raises SettingsError where ``named`` holds a kind that the data does not have."""
    known = {kind or UNKNOWN for kind in kinds} | {UNKNOWN}
    for name in named:
        if name not in known:
            raise SettingsError(
                "no event of this kind", where=where, expected=" | ".join(sorted(known)), found=name,
                next_step="see the column event of the data",
            )  # fmt: skip

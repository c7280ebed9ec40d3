"""From trials to one choice: limits, the best, and the smallest that is as good."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Candidate:
    """Settings that were measured.

    Attributes:
        number: The trial's; None for the settings as they were.
        values: ``section.key`` to value.
        quality: Higher is better.
        standard_error: Of the quality.
        size_bytes: Of the weights; None where it was not measured.
        latency_ms: At batch 1; likewise.
        deviations: See ``Measurement``.
    """

    number: int | None
    values: Mapping[str, Any]
    quality: float
    standard_error: float
    size_bytes: float | None = None
    latency_ms: float | None = None
    deviations: np.ndarray | None = field(default=None, compare=False, repr=False)

    @property
    def label(self) -> str:
        """For people."""
        return "settings as they were" if self.number is None else f"trial {self.number}"


@dataclass(frozen=True)
class Limits:
    """What may be picked at most.

    Attributes:
        size_mb: Megabytes of weights; 0 for no limit.
        latency_ms: Milliseconds; 0 for no limit.
    """

    size_mb: float = 0.0
    latency_ms: float = 0.0

    def allow(self, candidate: Candidate) -> bool:
        """Whether the candidate keeps to both; what was not measured does not."""
        size = math.inf if candidate.size_bytes is None else candidate.size_bytes / MEGABYTE
        latency = math.inf if candidate.latency_ms is None else candidate.latency_ms
        return (not self.size_mb or size <= self.size_mb) and (not self.latency_ms or latency <= self.latency_ms)


def best(candidates: Sequence[Candidate]) -> Candidate:
    """The highest quality; among equals the smallest, then the settings as they were, then the earliest."""
    return max(candidates, key=lambda found: (found.quality, -_size(found), -_order(found)))


def one_standard_error(candidates: Sequence[Candidate], *, paired: bool = False) -> Candidate:
    """The smallest model whose quality is within one standard error of the best's (Breiman et al. 1984, sec. 3.4.3).

    Among equally small ones the best.

    Args:
        candidates: At least one.
        paired: Take the standard error of the difference on the same users instead of the best's own, which is
            mostly how users differ from each other and so allows too much.
    """
    top = best(candidates)
    near = [
        found
        for found in candidates
        if top.quality - found.quality <= (difference_error(top, found) if paired else top.standard_error)
    ]
    return min(near, key=lambda found: (_size(found), -found.quality, _order(found)))


def difference_error(one: Candidate, two: Candidate) -> float:
    """Standard error of the difference in quality on the same users; of the first alone where users are not known."""
    if one.deviations is None or two.deviations is None:
        return one.standard_error
    return float(np.linalg.norm(one.deviations.astype(np.float64) - two.deviations.astype(np.float64)))


def pick(candidates: Sequence[Candidate], rule: str, limits: Limits) -> Candidate | None:
    """The candidate that ``rule`` (see ``tune.pick``) takes among those within ``limits``; None where none is."""
    allowed = [found for found in candidates if limits.allow(found)]
    if not allowed:
        return None
    return best(allowed) if rule == "best" else one_standard_error(allowed, paired=rule == "one-se-paired")


@dataclass(frozen=True)
class ProfileRow:
    """One value of a setting.

    Attributes:
        value: Plain value.
        trials: Complete trials with it.
        top: The best of them.
    """

    value: Any
    trials: int
    top: Candidate


def profile(candidates: Sequence[Candidate], key: str) -> list[ProfileRow]:
    """For each tried value of a setting the best that was reached with it, values ascending."""
    groups: dict[str, list[Candidate]] = {}
    for found in candidates:
        if key in found.values:
            groups.setdefault(repr(found.values[key]), []).append(found)
    rows = [ProfileRow(group[0].values[key], len(group), best(group)) for group in groups.values()]
    try:
        return sorted(rows, key=lambda row: row.value)
    except TypeError:  # choices of several types
        return sorted(rows, key=lambda row: repr(row.value))


def _size(found: Candidate) -> float:
    return math.inf if found.size_bytes is None else found.size_bytes


def _order(found: Candidate) -> int:
    return -1 if found.number is None else found.number

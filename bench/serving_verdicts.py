"""Do the turns keep what serving promises? Ratios are taken within a round, then the median over rounds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bench.serving_load import Cell

BARE, FASTAPI, INLINE = "bare ONNX Runtime", "FastAPI + ONNX Runtime", "FastAPI + ONNX Runtime, in the event loop"
TORCH, TRITON = "FastAPI + torch eager", "Triton recommend"
ONE, SIXTEEN, BATCH = "batch 1, 1 at once", "batch 1, 16 at once", "batch 64, 1 at once"
Turns = Mapping[str, Mapping[str, Sequence[Cell]]]


@dataclass(frozen=True)
class Verdict:
    """One promise.

    Attributes:
        promise: In words.
        wanted: Its bound.
        found: Median over rounds.
        least: Over rounds.
        most: Over rounds.
        kept: Whether the median holds.
        certain: Whether every round says the same. Where not, the machine was too busy or the difference is too small.
    """

    promise: str
    wanted: float
    found: float
    least: float
    most: float
    kept: bool
    certain: bool


def verdicts(turns: Turns) -> list[Verdict]:
    """Every promise; where FastAPI runs in two ways, the better one of a round is what ours is held against."""
    p50, p99, rate = (lambda cell: cell.p50_ms), (lambda cell: cell.p99_ms), (lambda cell: cell.users_per_second)
    triton, bare = turns[TRITON], turns[BARE]
    return [
        _judged(
            "p50 at 1 at once minus that of the bare graphs, ms", 1.0,
            _column(triton[ONE], p50) - _column(bare[ONE], p50), least_is_best=True,
        ),
        _judged(
            "p50 at 1 at once over FastAPI's", 1.0, _column(triton[ONE], p50) / _fastapi(turns, ONE, p50, np.minimum),
            least_is_best=True,
        ),
        _judged(
            "users/s at 16 at once over FastAPI's", 1.5,
            _column(triton[SIXTEEN], rate) / _fastapi(turns, SIXTEEN, rate, np.maximum), least_is_best=False,
        ),
        _judged(
            "p99 at 16 at once over FastAPI's", 1.0,
            _column(triton[SIXTEEN], p99) / _fastapi(turns, SIXTEEN, p99, np.minimum), least_is_best=True,
        ),
        _judged(
            "users/s at 16 at once over torch eager's", 4.0,
            _column(triton[SIXTEEN], rate) / _column(turns[TORCH][SIXTEEN], rate), least_is_best=False,
        ),
        _judged(
            "users/s at batch 64 over the bare graphs'", 1.0, _column(triton[BATCH], rate) / _column(bare[BATCH], rate),
            least_is_best=False,
        ),
    ]  # fmt: skip


def _column(cells: Sequence[Cell], figure: Callable[[Cell], float]) -> np.ndarray:
    return np.array([figure(cell) for cell in cells])


def _fastapi(turns: Turns, kind: str, figure: Callable[[Cell], float], better: np.ufunc) -> np.ndarray:
    ways = (_column(turns[name][kind], figure) for name in (FASTAPI, INLINE))
    found: np.ndarray = better(*ways)
    return found


def _judged(promise: str, wanted: float, found: np.ndarray, *, least_is_best: bool) -> Verdict:
    middle = round(float(np.median(found)), 3)
    kept = middle <= wanted if least_is_best else middle >= wanted
    each = found <= wanted if least_is_best else found >= wanted
    certain = bool((each == kept).all())
    return Verdict(promise, wanted, middle, round(float(found.min()), 3), round(float(found.max()), 3), kept, certain)

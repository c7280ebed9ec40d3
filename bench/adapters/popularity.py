"""Items by their number of events: all fitted ones, or the newest share of them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from bench.adapters.contract import CannotRunError, Problem, Settings, Solved, serve


def solve(problem: Problem, settings: Sequence[Settings], seed: int) -> Iterator[Solved]:
    """Setting ``newest_share``: which part of the fitted events counts, by time."""
    del seed  # nothing is drawn
    for place, one in enumerate(settings):
        started = time.perf_counter()
        share = float(one.get("newest_share", 1.0))
        if share < 1 and not problem.timestamps.any():
            raise CannotRunError("the data has no times")
        since = np.quantile(problem.timestamps, 1 - share)
        newest = problem.item_rows[problem.timestamps >= since]
        counts = np.bincount(newest, minlength=problem.n_items).astype(np.float64)
        seconds = time.perf_counter() - started
        yield Solved(place, partial(_same_for_all, counts), seconds)


def _same_for_all(counts: np.ndarray, users: np.ndarray) -> np.ndarray:
    return np.tile(counts, (len(users), 1))


if __name__ == "__main__":
    serve(solve, ("numpy",))

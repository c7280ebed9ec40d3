"""iALS of the package implicit (Hu, Koren and Volinsky 2008; conjugate gradients by Takács et al. 2011)."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
from implicit.cpu.als import AlternatingLeastSquares
from threadpoolctl import threadpool_limits

from bench.adapters.contract import Problem, Settings, Solved, serve


def solve(problem: Problem, settings: Sequence[Settings], seed: int) -> Iterator[Solved]:
    """Settings ``factors``, ``regularization``, ``alpha``, ``iterations`` as implicit names them."""
    matrix = problem.matrix()
    threads = int(os.environ["OMP_NUM_THREADS"])
    for place, one in enumerate(settings):
        model = AlternatingLeastSquares(**one, random_state=seed, num_threads=threads)
        started = time.perf_counter()
        with threadpool_limits(1, "blas"):  # implicit's own advice: its threads and BLAS's slow each other down
            model.fit(matrix, show_progress=False)
        seconds = time.perf_counter() - started
        yield Solved(
            place,
            partial(_score, model.user_factors, model.item_factors),
            seconds,
            {"epochs": one["iterations"], "seconds_per_epoch": seconds / one["iterations"]},
        )


def _score(users: np.ndarray, items: np.ndarray, rows: np.ndarray) -> np.ndarray:
    scores: np.ndarray = users[rows] @ items.T
    return scores


if __name__ == "__main__":
    serve(solve, ("implicit", "numpy", "scipy"))

"""iALS of the package irspack (Rendle et al. 2022, Revisiting the Performance of iALS)."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence

from irspack.recommenders import IALSRecommender

from bench.adapters.contract import Problem, Settings, Solved, serve


def solve(problem: Problem, settings: Sequence[Settings], seed: int) -> Iterator[Solved]:
    """Settings ``n_components``, ``alpha0``, ``reg``, ``train_epochs`` as irspack names them."""
    matrix = problem.matrix()
    threads = int(os.environ["OMP_NUM_THREADS"])
    for place, one in enumerate(settings):
        model = IALSRecommender(matrix, **one, random_seed=seed, n_threads=threads)
        started = time.perf_counter()
        model.learn()
        seconds = time.perf_counter() - started
        yield Solved(
            place,
            model.get_score,
            seconds,
            {"epochs": one["train_epochs"], "seconds_per_epoch": seconds / one["train_epochs"]},
        )


if __name__ == "__main__":
    serve(solve, ("irspack", "numpy", "scipy"))

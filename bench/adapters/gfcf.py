"""GF-CF: graph filters without training (Shen et al. 2021, How Powerful is Graph Convolution for Recommendation?)."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import svds

from bench.adapters.contract import Problem, Settings, Solved, serve


def solve(problem: Problem, settings: Sequence[Settings], seed: int) -> Iterator[Solved]:
    """Settings ``factors`` (width of the ideal low-pass filter) and ``ideal`` (its weight, the paper's alpha)."""
    matrix = problem.matrix()
    for factors in sorted({int(one["factors"]) for one in settings}):
        started = time.perf_counter()
        normal = normalised(matrix)
        start = np.random.default_rng(seed).standard_normal(min(normal.shape))
        right = svds(normal, k=min(factors, min(normal.shape) - 1), v0=start)[2]
        shared_seconds = time.perf_counter() - started
        for place, one in enumerate(settings):
            if int(one["factors"]) == factors:
                scorer = Filter(matrix, normal, right, float(one["ideal"]))
                yield Solved(place, scorer, shared_seconds)


def normalised(matrix: sp.csr_matrix) -> sp.csr_matrix:
    """``D_u^-1/2 R D_i^-1/2``; rows and columns without events stay zero."""
    scales = [np.asarray(matrix.sum(axis)).ravel() for axis in (1, 0)]
    left, right = (sp.diags(np.where(one > 0, np.maximum(one, 1), np.inf) ** -0.5) for one in scales)
    return (left @ matrix @ right).tocsr().astype(np.float32)


class Filter:
    """Scores ``r (P'P + ideal · D_i^-1/2 V V' D_i^1/2)`` of users' rows r."""

    def __init__(self, matrix: sp.csr_matrix, normal: sp.csr_matrix, right: np.ndarray, ideal: float) -> None:
        counts = np.maximum(np.asarray(matrix.sum(0)).ravel(), 1)
        self._matrix, self._normal, self._right, self._ideal = matrix, normal, right, ideal
        self._down, self._up = sp.diags(counts**-0.5), np.sqrt(counts)

    def __call__(self, users: np.ndarray) -> np.ndarray:
        rows = self._matrix[users]
        linear = ((rows @ self._normal.T) @ self._normal).toarray()
        low = ((rows @ self._down) @ self._right.T) @ self._right
        scores: np.ndarray = linear + self._ideal * low * self._up
        return scores


if __name__ == "__main__":
    serve(solve, ("numpy", "scipy"))

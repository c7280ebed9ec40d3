"""EASE: a linear item-item model in closed form (Steck 2019, Embarrassingly Shallow Autoencoders, eq. 8)."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import scipy.sparse as sp
from scipy.linalg import lapack

from bench.adapters.contract import CannotRunError, Problem, Settings, Solved, serve

MOST_ITEMS = 25_000
"""The dense inverse takes 8 I² bytes: 5 GB at this many items."""


def solve(problem: Problem, settings: Sequence[Settings], seed: int) -> Iterator[Solved]:
    """Setting ``l2``: what is added to the diagonal of the item-item counts."""
    del seed  # closed form
    if problem.n_items > MOST_ITEMS:
        size_gb = 8e-9 * problem.n_items**2
        raise CannotRunError(f"{problem.n_items:,} items need a dense inverse of {size_gb:.0f} GB")
    matrix = problem.matrix()
    for place, one in enumerate(settings):
        started = time.perf_counter()
        weights = item_weights((matrix.T @ matrix).toarray().astype(np.float64), float(one["l2"]))
        seconds = time.perf_counter() - started
        yield Solved(place, partial(_score, matrix, weights), seconds)


def item_weights(gram: np.ndarray, l2: float) -> np.ndarray:
    """Item-item weights ``B = I - P / diag(P)`` with ``P = (G + l2 I)^-1``; the diagonal is zero.

    Args:
        gram: Item-item counts ``(I, I)`` float64, overwritten.
        l2: Regularisation.

    Returns:
        float32 ``(I, I)``.
    """
    gram[np.diag_indices(len(gram))] += l2
    factor, failed = lapack.dpotrf(gram, lower=1, overwrite_a=1)
    if failed:
        raise np.linalg.LinAlgError("the regularised item-item counts are not positive definite")
    lower, _ = lapack.dpotri(factor, lower=1, overwrite_c=1)
    inverse = np.tril(lower) + np.tril(lower, -1).T
    weights = (inverse / -np.diag(inverse)).astype(np.float32)
    np.fill_diagonal(weights, 0)
    return weights


def _score(matrix: sp.csr_matrix, weights: np.ndarray, users: np.ndarray) -> np.ndarray:
    scores: np.ndarray = matrix[users] @ weights
    return scores


if __name__ == "__main__":
    serve(solve, ("numpy", "scipy"))

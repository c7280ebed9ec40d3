"""The CPU solver of iALS: preconditioned conjugate gradients, one compiled loop per row, rows in parallel."""

from __future__ import annotations

import numba
import numpy as np

from training.models.mf_problem import Interactions


def half_step(
    interactions: Interactions,
    fixed: np.ndarray,
    start: np.ndarray,
    spectrum: np.ndarray,
    ridge: np.ndarray,
    steps: int,
) -> np.ndarray:
    """Solves all rows with the other side fixed.

    Args:
        interactions: The rows to solve.
        fixed: float32 ``(columns, D)`` in the eigenbasis of its weighted Gram matrix.
        start: float32 ``(rows, D)``, where to start from.
        spectrum: float32 ``(D,)``, that Gram matrix's diagonal.
        ridge: float32 ``(rows,)``.
        steps: Conjugate gradient steps.

    Returns:
        float32 ``(rows, D)``; zero for rows without events. The same for any number of threads.
    """
    solution = np.ascontiguousarray(start, dtype=np.float32).copy()
    _solve_rows(
        interactions.starts,
        interactions.columns,
        interactions.weights,
        np.ascontiguousarray(fixed, dtype=np.float32),
        solution,
        spectrum,
        ridge,
        steps,
    )
    return solution


@numba.njit(cache=True, parallel=True, fastmath={"contract", "reassoc", "nsz", "arcp"})
def _solve_rows(starts, columns, weights, fixed, solution, spectrum, ridge, steps):  # type: ignore[no-untyped-def]
    dimension = fixed.shape[1]
    for row in numba.prange(len(starts) - 1):
        x = solution[row]
        first, last = starts[row], starts[row + 1]
        if first == last:
            x[:] = 0
            continue
        residual = np.zeros(dimension, np.float32)
        diagonal = np.empty(dimension, np.float32)
        product = np.empty(dimension, np.float32)
        direction = np.empty(dimension, np.float32)
        for d in range(dimension):
            diagonal[d] = spectrum[d] + ridge[row]
            residual[d] = -diagonal[d] * x[d]
        for event in range(first, last):
            vector = fixed[columns[event]]
            fit = np.float32(0)
            for d in range(dimension):
                fit += vector[d] * x[d]
            gap = weights[event] * (np.float32(1) - fit)
            for d in range(dimension):
                residual[d] += gap * vector[d]
        energy = np.float32(0)
        for d in range(dimension):
            direction[d] = residual[d] / diagonal[d]
            energy += residual[d] * direction[d]
        for _ in range(steps):
            if energy < np.float32(1e-20):
                break
            for d in range(dimension):
                product[d] = diagonal[d] * direction[d]
            for event in range(first, last):
                vector = fixed[columns[event]]
                fit = np.float32(0)
                for d in range(dimension):
                    fit += vector[d] * direction[d]
                fit *= weights[event]
                for d in range(dimension):
                    product[d] += fit * vector[d]
            curvature = np.float32(0)
            for d in range(dimension):
                curvature += direction[d] * product[d]
            step = energy / curvature
            previous, energy = energy, np.float32(0)
            for d in range(dimension):
                x[d] += step * direction[d]
                residual[d] -= step * product[d]
                energy += residual[d] * residual[d] / diagonal[d]
            ratio = energy / previous
            for d in range(dimension):
                direction[d] = residual[d] / diagonal[d] + ratio * direction[d]


def loss(interactions: Interactions, rows: np.ndarray, columns: np.ndarray, all_weight: float) -> float:
    """The loss without regularisation per unit of event weight.

    ``(sum_events w (1 - s)^2 + a0 sum_all s^2) / sum_events w`` with ``s`` the product of two vectors.

    Args:
        interactions: One direction.
        rows: float32 ``(rows, D)``, vectors of its rows.
        columns: float32 ``(columns, D)``, vectors of its columns.
        all_weight: ``a0``.
    """
    observed = _observed_loss(interactions.starts, interactions.columns, interactions.weights, rows, columns)
    gram = (rows.T.astype(np.float64) @ rows) * (columns.T.astype(np.float64) @ columns)
    return float((observed + all_weight * gram.sum()) / interactions.mass.sum())


@numba.njit(cache=True)
def _observed_loss(starts, columns, weights, row_vectors, column_vectors):  # type: ignore[no-untyped-def]
    total = 0.0
    for row in range(len(starts) - 1):
        for event in range(starts[row], starts[row + 1]):
            gap = 1.0 - np.dot(row_vectors[row], column_vectors[columns[event]])
            total += weights[event] * gap * gap
    return total

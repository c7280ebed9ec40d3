"""The CPU solver of iALS: preconditioned conjugate gradients, one compiled loop per row, rows in parallel."""

from __future__ import annotations

import numba
import numpy as np
import torch

from training.distributed.group import ALONE, Group
from training.models.mf_problem import Interactions, gram_of
from training.models.prefetch import prefetch_row


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
        interactions.order,
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


AHEAD = 8
"""Events between asking for a vector and using it."""
FAST_MATH = {"contract", "reassoc", "nsz", "arcp"}


@numba.njit(cache=True, fastmath=FAST_MATH)
def _add_observed(into, point, columns, weights, fixed, constant, slope):  # type: ignore[no-untyped-def]
    """Adds ``sum_e w_e g_e v_e`` to ``into`` and returns ``sum_e w_e g_e^2``.

    Vectors are ``v_e = fixed[columns[e]]``, gaps ``g_e = constant + slope v_e.point``.
    Four events at a time: their four sums do not wait for each other, and ``into`` is read and written once for all.
    """
    dimension = fixed.shape[1]
    count = len(columns)
    fours = count & ~3
    squares = 0.0
    for event in range(0, fours, 4):
        for ahead in range(event + AHEAD, min(event + AHEAD + 4, count)):
            prefetch_row(fixed, columns[ahead])
        a, b = fixed[columns[event]], fixed[columns[event + 1]]
        c, d = fixed[columns[event + 2]], fixed[columns[event + 3]]
        fit_a, fit_b, fit_c, fit_d = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
        for at in range(dimension):
            fit_a += a[at] * point[at]
            fit_b += b[at] * point[at]
            fit_c += c[at] * point[at]
            fit_d += d[at] * point[at]
        gap_a = constant + slope * fit_a
        fit_a = weights[event] * gap_a
        gap_b = constant + slope * fit_b
        fit_b = weights[event + 1] * gap_b
        gap_c = constant + slope * fit_c
        fit_c = weights[event + 2] * gap_c
        gap_d = constant + slope * fit_d
        fit_d = weights[event + 3] * gap_d
        squares += fit_a * gap_a + fit_b * gap_b + fit_c * gap_c + fit_d * gap_d
        for at in range(dimension):
            into[at] += fit_a * a[at] + fit_b * b[at] + fit_c * c[at] + fit_d * d[at]
    for event in range(fours, count):
        vector = fixed[columns[event]]
        fit = np.float32(0)
        for at in range(dimension):
            fit += vector[at] * point[at]
        gap = constant + slope * fit
        fit = weights[event] * gap
        squares += fit * gap
        for at in range(dimension):
            into[at] += fit * vector[at]
    return squares


@numba.njit(cache=True, parallel=True, fastmath=FAST_MATH)
def _solve_rows(order, starts, columns, weights, fixed, solution, spectrum, ridge, steps):  # type: ignore[no-untyped-def]
    dimension = fixed.shape[1]
    zero, one = np.float32(0), np.float32(1)
    for place in numba.prange(len(order)):
        row = order[place]
        x = solution[row]
        first, last = starts[row], starts[row + 1]
        if first == last:
            x[:] = 0
            continue
        its_columns, its_weights = columns[first:last], weights[first:last]
        residual = np.empty(dimension, np.float32)
        diagonal = np.empty(dimension, np.float32)
        product = np.empty(dimension, np.float32)
        direction = np.empty(dimension, np.float32)
        for d in range(dimension):
            diagonal[d] = spectrum[d] + ridge[row]
            residual[d] = -diagonal[d] * x[d]
        _add_observed(residual, x, its_columns, its_weights, fixed, one, -one)
        energy = zero
        for d in range(dimension):
            direction[d] = residual[d] / diagonal[d]
            energy += residual[d] * direction[d]
        for _ in range(steps):
            if energy < np.float32(1e-20):
                break
            for d in range(dimension):
                product[d] = diagonal[d] * direction[d]
            _add_observed(product, direction, its_columns, its_weights, fixed, zero, one)
            curvature = zero
            for d in range(dimension):
                curvature += direction[d] * product[d]
            step = energy / curvature
            previous, energy = energy, zero
            for d in range(dimension):
                x[d] += step * direction[d]
                residual[d] -= step * product[d]
                energy += residual[d] * residual[d] / diagonal[d]
            ratio = energy / previous
            for d in range(dimension):
                direction[d] = residual[d] / diagonal[d] + ratio * direction[d]


def loss(
    interactions: Interactions, rows: np.ndarray, columns: np.ndarray, all_weight: float, group: Group = ALONE
) -> float:
    """The loss without regularisation per unit of event weight.

    ``(sum_events w (1 - s)^2 + a0 sum_all s^2) / sum_events w`` with ``s`` the product of two vectors.

    Args:
        interactions: One direction, this worker's rows.
        rows: float32 ``(rows, D)``, vectors of its rows.
        columns: float32 ``(columns, D)``, vectors of all its columns.
        all_weight: ``a0``.
        group: Those who have the other rows.
    """
    observed = _observed_loss(
        interactions.order, interactions.starts, interactions.columns, interactions.weights, rows, columns
    )
    sums = group.all_reduce_sum(torch.tensor([observed, interactions.mass.sum()], dtype=torch.float64))
    gram = gram_of(rows, group) * gram_of(columns)
    return float((sums[0] + all_weight * gram.sum()) / sums[1])


@numba.njit(cache=True, parallel=True)
def _observed_loss(order, starts, columns, weights, row_vectors, column_vectors):  # type: ignore[no-untyped-def]
    losses = np.empty(len(starts) - 1)  # one sum per row: the same for any number of threads
    for place in numba.prange(len(order)):
        row = order[place]
        first, last = starts[row], starts[row + 1]
        unused = np.zeros(row_vectors.shape[1], np.float32)
        losses[row] = _add_observed(
            unused,
            row_vectors[row],
            columns[first:last],
            weights[first:last],
            column_vectors,
            np.float32(1),
            np.float32(-1),
        )
    return losses.sum()

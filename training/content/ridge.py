"""The tower's start values: the ridge regression from content to the model's vectors, factorised."""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse

from core.features import UNKNOWN
from training.content.inputs import ContentInputs
from training.content.tower import ContentTower

RIDGE = 10.0
"""In events' worth of weight: an item that teaches fully has weight 1."""
STEPS = 60
"""Conjugate gradient steps; the ridge keeps the problem well conditioned."""


def regress(design: sparse.csr_matrix, targets: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Minimises ``sum_i w_i |x_i B - y_i|^2 + RIDGE |B|^2`` by conjugate gradients, all columns at once.

    Args:
        design: ``(n, p)``.
        targets: float ``(n, q)``.
        weights: float ``(n,)``, 0 or more.

    Returns:
        float64 ``(p, q)``.
    """
    weighted = sparse.diags(weights) @ design
    residual = weighted.T @ targets
    solution, direction = np.zeros_like(residual), residual.copy()
    energy = np.square(residual).sum(0)
    for _ in range(STEPS):
        product = weighted.T @ (design @ direction) + RIDGE * direction
        step = energy / np.maximum((direction * product).sum(0), 1e-30)
        solution += step * direction
        residual -= step * product
        previous, energy = energy, np.square(residual).sum(0)
        direction = residual + energy / np.maximum(previous, 1e-30) * direction
    return solution


def design_of(tower: ContentTower, inputs: ContentInputs, rows: np.ndarray) -> sparse.csr_matrix:
    """What the tower's values and projections see of items ``rows``: ``(n, values + block widths)``."""
    codes = inputs.codes.numpy()[rows]
    slots, offsets = tower.slots.numpy(), tower.offsets.numpy()
    items, places = np.nonzero(codes > UNKNOWN)
    per_column = np.zeros((len(rows), tower.n_columns))
    np.add.at(per_column, (items, slots[places]), 1)
    shares = 1 / per_column[items, slots[places]]
    values = sparse.csr_matrix(
        (shares, (items, codes[items, places] + offsets[places])), shape=(len(rows), len(tower.values))
    )
    blocks = [sparse.csr_matrix(block.vectors.numpy()[rows].astype(np.float64)) for block in inputs.blocks.values()]
    return sparse.hstack([values, *blocks], format="csr")


def start_from_ridge(
    tower: ContentTower, inputs: ContentInputs, rows: np.ndarray, targets: np.ndarray, weights: np.ndarray
) -> None:
    """Sets values, projections, gates and head so that the tower gives what the regression does.

    Args:
        tower: To be changed.
        inputs: Its content.
        rows: Items that teach.
        targets: float ``(n, q)``, their tables divided by the heads' scales, and their bias.
        weights: float ``(n,)``.
    """
    mean = (weights[:, None] * targets).sum(0) / weights.sum()
    solved = regress(design_of(tower, inputs, rows), targets - mean, weights)
    left, sizes, right = np.linalg.svd(solved, full_matrices=False)
    width = min(tower.values.shape[1], len(sizes))
    roots = np.sqrt(sizes[:width])
    factors = torch.from_numpy((left[:, :width] * roots).astype(np.float32))
    with torch.no_grad():
        for parameter in (tower.values, tower.head, *tower.projections.values()):
            parameter.zero_()
        tower.head[:width] = torch.from_numpy((roots[:, None] * right[:width]).astype(np.float32))
        tower.start.copy_(torch.from_numpy(mean.astype(np.float32)))
        at = len(tower.values)
        tower.values[:, :width] = factors[:at]
        for matrix in tower.projections.values():
            matrix[:, :width] = factors[at : at + len(matrix)]
            at += len(matrix)
        for gate in tower.gates.values():
            gate.fill_(1.0)

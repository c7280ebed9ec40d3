"""The torch solver of iALS: the same steps as the compiled one, in blocks of rows, on CPU or GPU."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from training.models.mf_problem import Interactions

BLOCK_EVENTS = 65_536
"""Events gathered at once: small enough for the cache of a CPU core."""
BLOCK_EVENTS_GPU = 4_194_304


def half_step(
    interactions: Interactions,
    fixed: np.ndarray,
    start: np.ndarray,
    spectrum: np.ndarray,
    ridge: np.ndarray,
    steps: int,
    device: torch.device,
) -> np.ndarray:
    """As :func:`training.models.mf_numba.half_step`, computed by torch on ``device``."""
    table = torch.from_numpy(np.ascontiguousarray(fixed)).to(device)
    diagonal_of_all = torch.from_numpy(spectrum).to(device)
    solution = np.zeros_like(start, dtype=np.float32)
    filled = np.flatnonzero(np.diff(interactions.starts))
    events = BLOCK_EVENTS if device.type == "cpu" else BLOCK_EVENTS_GPU
    for rows in _blocks(filled, interactions.starts, events):
        first, last = int(interactions.starts[rows[0]]), int(interactions.starts[rows[-1] + 1])
        lengths = np.diff(interactions.starts)[rows[0] : rows[-1] + 1][rows - rows[0]]
        solution[rows] = (
            _solve_block(
                torch.from_numpy(interactions.columns[first:last]).to(device).long(),
                torch.from_numpy(interactions.weights[first:last]).to(device),
                torch.from_numpy(lengths.astype(np.int64)).to(device),
                table,
                torch.from_numpy(start[rows]).to(device),
                diagonal_of_all + torch.from_numpy(ridge[rows]).to(device)[:, None],
                steps,
            )
            .cpu()
            .numpy()
        )
    return solution


def _blocks(rows: np.ndarray, starts: np.ndarray, events: int) -> list[np.ndarray]:
    """Splits rows into runs of about ``events`` events; rows without events lie in no run."""
    if len(rows) == 0:
        return []
    return np.split(rows, np.flatnonzero(np.diff(starts[rows] // events)) + 1)


def _solve_block(
    columns: torch.Tensor,
    weights: torch.Tensor,
    lengths: torch.Tensor,
    table: torch.Tensor,
    x: torch.Tensor,
    diagonal: torch.Tensor,
    steps: int,
) -> torch.Tensor:
    vectors = table[columns]  # (events, D)
    owners = torch.repeat_interleave(torch.arange(len(lengths), device=columns.device), lengths)
    offsets = lengths.cumsum(0) - lengths

    def gather(per_event: torch.Tensor) -> torch.Tensor:  # embedding_bag sums each bag in order: deterministic on GPU
        return F.embedding_bag(columns, table, offsets, mode="sum", per_sample_weights=per_event)

    def fit(direction: torch.Tensor) -> torch.Tensor:
        return (vectors * direction[owners]).sum(1)

    residual = gather(weights * (1 - fit(x))) - diagonal * x
    direction = residual / diagonal
    energy = (residual * direction).sum(1, keepdim=True)
    for _ in range(steps):
        product = diagonal * direction + gather(weights * fit(direction))
        step = energy / (direction * product).sum(1, keepdim=True).clamp_min(1e-20)
        x = x + step * direction
        residual = residual - step * product
        previous, energy = energy, (residual * residual / diagonal).sum(1, keepdim=True)
        direction = residual / diagonal + energy / previous.clamp_min(1e-20) * direction
    return x

"""One half of an iALS epoch as arrays, and its exact solution to test the fast solvers against."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numba
import numpy as np
import torch

from core.columns import BLOCK_ROWS, blocks, counts_of, release, scratch
from training.distributed.group import ALONE, Group

PILES = 64
"""More than threads, so that each thread gets several whole piles."""
STRETCH_EVENTS = 1_024
"""Events of neighbouring rows that are dealt together."""
FEWEST_STRETCHES = 16 * PILES
"""With fewer of them rows are dealt one by one."""


@dataclass(frozen=True)
class Interactions:
    """Weighted interactions in one direction, as a CSR matrix without values other than weights.

    Attributes:
        starts: int32 ``(rows + 1,)`` (int64 above 2^31 events).
        columns: int32 ``(events,)``.
        weights: float32 ``(events,)``, all positive.
        mass: float64 ``(rows,)``, the sum of each row's weights.
        n_columns: How many columns there are.
        order: int64 ``(rows,)``, all rows so that equal shares of the order hold about equally many events.
    """

    starts: np.ndarray
    columns: np.ndarray
    weights: np.ndarray
    mass: np.ndarray
    n_columns: int
    order: np.ndarray

    def __len__(self) -> int:
        return len(self.starts) - 1

    @classmethod
    def both_ways(
        cls, starts: np.ndarray, item_rows: np.ndarray, weights: np.ndarray, n_items: int, folder: Path | None = None
    ) -> tuple[Interactions, Interactions]:
        """Items of each user, and users of each item in ascending order.

        Args:
            starts: Offsets ``(U + 1,)`` of each user's events.
            item_rows: int ``(events,)``; each item at most once per user.
            weights: float32 ``(events,)``.
            n_items: I.
            folder: Takes what may not fit memory; None keeps it in memory.
        """
        counts = counts_of(item_rows, n_items)
        item_starts = offsets(counts)
        users, their_weights = scratch(folder, len(weights), np.int32), scratch(folder, len(weights), np.float32)
        item_rows, weights = item_rows.astype(np.int32, copy=False), weights.astype(np.float32, copy=False)
        _transpose(
            starts, np.asarray(item_rows), np.asarray(weights), item_starts[:-1].astype(np.int64),
            np.asarray(users), np.asarray(their_weights),
        )  # fmt: skip
        return (
            cls._of(starts.astype(item_starts.dtype), item_rows, weights, n_items),
            cls._of(item_starts, users, their_weights, len(starts) - 1),
        )

    def part(self, rows: np.ndarray) -> Interactions:
        """The interactions of some rows (int64, ascending) alone, which become rows 0, 1, …"""
        if len(rows) == len(self):
            return self
        lengths = np.diff(self.starts)[rows]
        starts = np.concatenate([[0], np.cumsum(lengths)]).astype(self.starts.dtype)
        kept = np.arange(starts[-1]) + np.repeat(self.starts[rows] - starts[:-1], lengths)
        return Interactions(
            starts, self.columns[kept], self.weights[kept], self.mass[rows], self.n_columns, balanced_order(starts)
        )

    @classmethod
    def _of(cls, starts: np.ndarray, columns: np.ndarray, weights: np.ndarray, n_columns: int) -> Interactions:
        release(columns, weights)
        return cls(starts, columns, weights, _row_sums(starts, weights), n_columns, balanced_order(starts))


def offsets(counts: np.ndarray) -> np.ndarray:
    """Where each row's events start and the last one's end ``(rows + 1,)``: int32, int64 above 2^31 events."""
    ends = np.concatenate([[0], np.cumsum(counts)])
    return ends.astype(np.int32 if ends[-1] < 2**31 else np.int64)


def _row_sums(starts: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Sum of each row's weights in float32, as float64 ``(rows,)``."""
    sums = np.zeros(len(starts) - 1, dtype=np.float32)
    filled = np.flatnonzero(np.diff(starts))
    firsts = starts[filled].astype(np.int64)
    for rows in np.split(np.arange(len(filled)), np.flatnonzero(np.diff(firsts // BLOCK_ROWS)) + 1):
        if len(rows):
            first, last = firsts[rows[0]], starts[filled[rows[-1]] + 1]
            sums[filled[rows]] = np.add.reduceat(weights[first:last], firsts[rows] - first)
            release(weights)
    return sums.astype(np.float64)


@numba.njit(cache=True)
def _transpose(starts, columns, weights, free, rows_of_columns, weights_of_columns):  # type: ignore[no-untyped-def]
    for row in range(len(starts) - 1):
        for event in range(starts[row], starts[row + 1]):
            place = free[columns[event]]
            free[columns[event]] += 1
            rows_of_columns[place] = row
            weights_of_columns[place] = weights[event]


def balanced_order(starts: np.ndarray) -> np.ndarray:
    """All rows, dealt longest first onto ``PILES`` piles, pile after pile.

    Threads take equal shares of rows. In the order of a vocabulary that starts with what is popular, the first share
    would hold nearly all events. Of large data not single rows are dealt but stretches of neighbours: what a thread
    reads next then lies behind what it has read.

    Args:
        starts: Offsets ``(rows + 1,)`` of the rows' events.
    """
    events = STRETCH_EVENTS if starts[-1] > FEWEST_STRETCHES * STRETCH_EVENTS else 1
    stretches = starts[:-1] // events
    firsts = np.flatnonzero(np.diff(stretches, prepend=-1))
    ends = np.append(firsts[1:], len(starts) - 1)
    longest_first = np.argsort(starts[firsts] - starts[ends], kind="stable")
    dealt = np.concatenate([longest_first[pile::PILES] for pile in range(PILES)])
    lengths = (ends - firsts)[dealt]
    before = np.cumsum(lengths) - lengths
    order: np.ndarray = np.repeat(firsts[dealt] - before, lengths) + np.arange(len(starts) - 1)
    return order


def dealt_rows(starts: np.ndarray, count: int) -> tuple[np.ndarray, ...]:
    """Rows of each of ``count`` workers, int64 ascending: dealt longest first, so that events are about equal.

    Args:
        starts: Offsets ``(rows + 1,)`` of the rows' events.
        count: Workers.
    """
    longest_first = np.argsort(-np.diff(starts), kind="stable")
    return tuple(np.sort(longest_first[worker::count]) for worker in range(count))


@dataclass(frozen=True)
class Objective:
    """The constants of the iALS loss; see :class:`training.models.mf_model.MfRecall`.

    Attributes:
        all_weight: ``a0``, weight of every (user, item) pair as a zero.
        regularisation: ``reg``.
        frequency_power: ``nu``.
    """

    all_weight: float
    regularisation: float
    frequency_power: float

    def ridge(self, interactions: Interactions) -> np.ndarray:
        """Weight of each row's squared norm, float32 ``(rows,)``."""
        mass = interactions.mass + self.all_weight * interactions.n_columns
        return (self.regularisation * mass**self.frequency_power).astype(np.float32)


def rotate_to_eigenbasis(
    fixed: np.ndarray, moving: np.ndarray, all_weight: float, group: Group = ALONE
) -> tuple[np.ndarray, ...]:
    """Rotates both factor matrices so that ``all_weight * fixed' fixed`` becomes diagonal; no score changes.

    Args:
        fixed: float32 ``(n, D)``, this worker's rows.
        moving: float32 ``(m, D)``, this worker's rows.
        all_weight: ``a0``.
        group: The Gram matrix is the sum of all workers'.

    Returns:
        The rotated ``fixed`` and ``moving`` (float32) and the diagonal (float32 ``(D,)``, not negative).
    """
    gram = gram_of(fixed, group)
    # one worker decides: where eigenvalues are equal, another processor may choose other vectors
    values, basis = group.agree(lambda: np.linalg.eigh(all_weight * gram))
    rotation = basis.astype(np.float32)
    return fixed @ rotation, moving @ rotation, np.maximum(values, 0).astype(np.float32)


def gram_of(own: np.ndarray, group: Group = ALONE) -> np.ndarray:
    """``Y' Y`` float64 ``(D, D)`` of a table of which each worker has some rows."""
    gram = np.zeros((own.shape[1], own.shape[1]))
    for part in blocks(own):  # float64 copies of a table of users are large
        gram += own[part].T.astype(np.float64) @ own[part].astype(np.float64)
    total: np.ndarray = group.all_reduce_sum(torch.from_numpy(gram)).numpy()
    return total


def exact_half_step(interactions: Interactions, fixed: np.ndarray, objective: Objective) -> np.ndarray:
    """The minimiser of every row by a dense solve in float64: slow, for tests and small data.

    Returns:
        float64 ``(rows, D)``; zero for rows without events.
    """
    fixed = fixed.astype(np.float64)
    gram = objective.all_weight * fixed.T @ fixed
    ridge = objective.ridge(interactions).astype(np.float64)
    solution = np.zeros((len(interactions), fixed.shape[1]))
    for row in np.flatnonzero(np.diff(interactions.starts)):
        part = slice(interactions.starts[row], interactions.starts[row + 1])
        vectors, weights = fixed[interactions.columns[part]], interactions.weights[part].astype(np.float64)
        matrix = gram + (vectors * weights[:, None]).T @ vectors + ridge[row] * np.eye(fixed.shape[1])
        solution[row] = np.linalg.solve(matrix, weights @ vectors)
    return solution

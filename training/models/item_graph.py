"""Where the graph model starts: item tables from a spectrum, and each item's nearest items.

Both come from the user-item graph normalised as in GF-CF (Shen et al. 2021): ``R~ = Du^-1/2 R Di^-1/2``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import svds

from core.histories import Histories

BLOCK_CELLS = 16_000_000
"""Dense cells of one block of the item-item matrix: 64 MB in float32."""


@dataclass(frozen=True)
class ItemGraph:
    """Directed edges from near items to the item that listens to them.

    Attributes:
        sources: int64 ``(E,)``, the near item.
        targets: int64 ``(E,)``, the listening item, ascending.
        log_weights: float32 ``(E,)``, logarithm of the normalised co-occurrence.
    """

    sources: np.ndarray
    targets: np.ndarray
    log_weights: np.ndarray

    def __len__(self) -> int:
        return len(self.sources)


@dataclass(frozen=True)
class SpectralTables:
    """Two item tables whose products are GF-CF's ideal low-pass filter, up to a factor per user.

    Attributes:
        history: float32 ``(I, D)``, ``Di^-1/2 V``: what an item in the history says.
        target: float32 ``(I, D)``, ``Di^1/2 V``: what an item is recommended for.
    """

    history: np.ndarray
    target: np.ndarray


def normalised_adjacency(
    histories: Histories, n_items: int, kind_weights: np.ndarray | None = None
) -> sparse.csr_matrix:
    """``R~`` as CSR float32 ``(U, I)``; users and items without events stay empty.

    Args:
        histories: Training events, the edges.
        n_items: I.
        kind_weights: Weight of an edge by the code of its kind; all 1 when None.
    """
    edges = np.ones(len(histories.item_rows)) if kind_weights is None else kind_weights[histories.kinds]
    owners = np.repeat(np.arange(len(histories)), histories.lengths)
    users = np.bincount(owners, edges, minlength=len(histories))
    items = np.bincount(histories.item_rows, edges, minlength=n_items)
    weights = edges / np.sqrt(users[owners] * items[histories.item_rows])
    return sparse.csr_matrix(
        (weights.astype(np.float32), histories.item_rows, histories.starts), shape=(len(histories), n_items)
    )


def spectral_tables(
    adjacency: sparse.csr_matrix, item_mass: np.ndarray, dimension: int, rng: np.random.Generator
) -> SpectralTables:
    """Tables from the ``dimension`` leading right singular vectors, scaled to a root mean square of 1 over seen items.

    Args:
        adjacency: ``R~``.
        item_mass: Summed edge weights of each item ``(I,)``.
        dimension: D; columns beyond the rank of ``R~`` are zero.
        rng: Start vector of the Lanczos iteration.
    """
    n_users, n_items = adjacency.shape
    rank = min(dimension, n_users - 1, n_items - 1)
    vectors = np.zeros((n_items, dimension))
    if rank > 0:
        start = rng.normal(size=min(adjacency.shape))
        _, values, right = svds(adjacency.astype(np.float64), k=rank, v0=start, solver="arpack")
        order = np.argsort(-values)
        found = right[order].T * (values[order] > 1e-8)
        found *= np.sign(found[np.abs(found).argmax(0), np.arange(rank)] + 1e-300)  # a singular vector's sign is free
        vectors[:, :rank] = found
    seen = item_mass > 0
    roots = np.sqrt(np.where(seen, item_mass, 1))[:, None]
    vectors[~seen] = 0
    return SpectralTables(*(_unit_scale(table, seen) for table in (vectors / roots, vectors * roots)))


def nearest_items(adjacency: sparse.csr_matrix, neighbours: int) -> ItemGraph:
    """Each item's ``neighbours`` nearest other items by ``R~' R~``, those with a common user only.

    Worked in blocks of items, so that memory stays below a few hundred MB for any catalogue.
    """
    n_items = adjacency.shape[1]
    by_item = adjacency.T.tocsr()
    width = max(1, min(n_items, BLOCK_CELLS // max(n_items, 1)))
    kept = min(neighbours, n_items - 1)
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for first in range(0, n_items, width):
        block = np.asarray((by_item[first : first + width] @ adjacency).todense())  # (width, I)
        rows = np.arange(len(block))
        block[rows, first + rows] = 0
        near = np.argpartition(-block, kept - 1, axis=1)[:, :kept] if kept else np.zeros((len(block), 0), int)
        near = np.sort(near, axis=1)
        weights = block[rows[:, None], near]
        linked = weights > 0
        targets = np.broadcast_to((first + rows)[:, None], near.shape)
        parts.append((near[linked], targets[linked], weights[linked]))
    sources, targets, weights = (np.concatenate(column) for column in zip(*parts, strict=True))
    return ItemGraph(sources.astype(np.int64), targets.astype(np.int64), np.log(weights).astype(np.float32))


def _unit_scale(table: np.ndarray, seen: np.ndarray) -> np.ndarray:
    scale = np.sqrt(np.square(table[seen]).mean()) if seen.any() else 0.0
    return (table / (scale or 1.0)).astype(np.float32)

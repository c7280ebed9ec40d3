"""Leading singular vectors of a sparse matrix by block subspace iteration (Halko, Martinsson and Tropp 2011)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

SPARE_COLUMNS = 64
"""Columns iterated beyond those asked for: they take the error of the last ones."""
SMALLEST_SHARE = 1e-5
"""Singular values below this share of the largest one count as zero: float32 cannot tell them apart."""


@dataclass(frozen=True)
class TruncatedSvd:
    """The right side of a truncated singular value decomposition, largest value first.

    Attributes:
        values: float64 ``(D,)``, not negative; 0 beyond the matrix's rank.
        vectors: float32 ``(columns, D)``, orthonormal; zero where the value is 0. The largest entry of each vector
            is positive.
    """

    values: np.ndarray
    vectors: np.ndarray


def truncated_svd(
    matrix: sparse.csr_matrix, dimension: int, rng: np.random.Generator, iterations: int = 5
) -> TruncatedSvd:
    """The ``dimension`` leading right singular vectors.

    Every iteration multiplies a block of ``dimension + 64`` vectors with the matrix and its transpose: a thousand
    vectors of a large sparse matrix take seconds, where one-by-one Lanczos takes minutes. Vectors whose singular
    values lie close together come out mixed with each other, which a smooth filter does not feel.

    Args:
        matrix: float32 ``(rows, columns)``.
        dimension: D.
        rng: Start of the iteration.
        iterations: Products with matrix and transpose; more separate close singular values better.
    """
    columns = matrix.shape[1]
    width = min(dimension + SPARE_COLUMNS, columns)
    transposed = matrix.T.tocsr()
    block = _orthonormal(rng.normal(size=(columns, width)).astype(np.float32))
    for _ in range(iterations):
        block = _orthonormal(transposed @ (matrix @ block))
    image = matrix @ block
    squares, rotation = np.linalg.eigh((image.T @ image).astype(np.float64))
    order = np.argsort(-squares)[:dimension]
    found_values = np.sqrt(np.maximum(squares[order], 0))
    found_values[found_values <= SMALLEST_SHARE * found_values.max(initial=0)] = 0
    found = (block @ rotation[:, order].astype(np.float32)) * (found_values > 0)
    largest = found[np.abs(found).argmax(axis=0), np.arange(found.shape[1])]
    values, vectors = np.zeros(dimension), np.zeros((columns, dimension), np.float32)
    values[: len(order)] = found_values
    vectors[:, : len(order)] = found * np.where(largest < 0, -1, 1).astype(np.float32)
    return TruncatedSvd(values, vectors)


def _orthonormal(block: np.ndarray) -> np.ndarray:
    """An orthonormal basis of the block's span, by the eigenvectors of its Gram matrix; directions lost to rounding
    become zero."""
    squares, basis = np.linalg.eigh((block.T @ block).astype(np.float64))
    kept = squares > 1e-10 * squares.max(initial=0)
    scale = np.where(kept, 1 / np.sqrt(np.where(kept, squares, 1)), 0)
    result: np.ndarray = block @ (basis * scale).astype(np.float32)
    return result

"""How alike items (or users) are: cosines of their vectors, freed of what all of them share."""

from __future__ import annotations

import numpy as np


def shared_part(vectors: np.ndarray) -> np.ndarray:
    """Mean of the rows that are not zero, float64 ``(D,)``; zero where all are.

    Vectors of recommenders have a large common part along which popular items lie further out. With it in place
    popular items are near to everything; without it being near says nothing of popularity (Mu and Viswanath 2018
    found the same of word vectors).
    """
    known = vectors.any(axis=1)
    if not known.any():
        return np.zeros(vectors.shape[1])
    mean: np.ndarray = vectors[known].mean(axis=0, dtype=np.float64)
    return mean


def directions(vectors: np.ndarray) -> np.ndarray:
    """Rows without the shared part, of length 1, float32 ``(N, D)``; rows of zeros, of which nothing is known, stay.

    >>> directions(np.array([[3.0, 1.0], [1.0, 1.0], [0.0, 0.0]]))
    array([[ 1.,  0.],
           [-1.,  0.],
           [ 0.,  0.]], dtype=float32)

    Args:
        vectors: float ``(N, D)``.
    """
    known = vectors.any(axis=1, keepdims=True)
    centred = np.where(known, vectors - shared_part(vectors), 0.0)
    lengths = np.linalg.norm(centred, axis=1, keepdims=True)
    units: np.ndarray = (centred / np.where(lengths > 0, lengths, 1.0)).astype(np.float32)
    return units

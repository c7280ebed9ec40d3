"""Rotations that cost little: the Kronecker product of two small orthonormal matrices in place of one of ``D x D``."""

from __future__ import annotations

import torch


def turned(vectors: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """``vectors @ kron(left, right)`` in ``D (a + b)`` steps a vector.

    Args:
        vectors: float32 ``(..., D)``.
        left: ``(a, a)``.
        right: ``(b, b)``, ``a b = D``.
    """
    grid = vectors.reshape(*vectors.shape[:-1], left.shape[0], right.shape[0])
    return (left.T @ grid @ right).reshape(vectors.shape)


def turned_back(vectors: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Undoes :func:`turned` of orthonormal matrices."""
    return turned(vectors, left.T, right.T)

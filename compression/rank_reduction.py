"""Fewer columns for trained tables whose scores are dot products: the best low-rank form of what users really score.

Plain PCA of the item table asks which directions items differ in; what counts is which of them users' vectors reach.
Both covariances enter here, so that the error of ``X T'`` is the least of that rank (Eckart and Young 1936).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

RIDGE = 1e-6
"""Added to covariances, relative to their mean diagonal: directions that no user reaches stay finite."""


@dataclass(frozen=True)
class Factors:
    """Maps to fewer columns.

    Attributes:
        of_users: ``(D, r)``: user vectors, and the history tables that they are sums of, are multiplied by it.
        of_items: ``(D, r)``: item vectors are multiplied by it.
        energy: Share of the scores' squared size that is kept, 0..1.
    """

    of_users: torch.Tensor
    of_items: torch.Tensor
    energy: float


def joint_factors(users: torch.Tensor, items: torch.Tensor, rank: int) -> Factors:
    """Maps for two tables that share nothing but their products.

    With ``U'U/n = L_u L_u'`` and ``T'T/m = L_t L_t'``, the singular vectors of ``L_u' L_t`` are those of the scores.

    Args:
        users: User vectors as served, float32 ``(U, D)``; rows of zeros say nothing.
        items: Item vectors ``(N, D)``.
        rank: r, at most D.
    """
    left, right = _root(users), _root(items)
    p, s, qt = torch.linalg.svd(left.T @ right)
    root = s[:rank].sqrt()
    of_users = torch.linalg.solve(left.T, p[:, :rank]) * root
    of_items = torch.linalg.solve(right.T, qt[:rank].T) * root
    return Factors(of_users.float(), of_items.float(), _kept(s, rank))


def shared_basis(users: torch.Tensor, items: torch.Tensor, rank: int) -> tuple[torch.Tensor, float]:
    """One orthonormal basis ``(D, r)`` for a table that is both history and catalogue, and the energy that it keeps.

    Leading eigenvectors of the symmetric part of the product of both covariances.
    """
    both = _covariance(users) @ _covariance(items)
    values, vectors = torch.linalg.eigh((both + both.T) / 2)
    order = values.abs().argsort(descending=True)
    basis = vectors[:, order[:rank]]
    left, right = _root(users), _root(items)
    whole = (left.T @ right).square().sum()
    lost = (left.T @ (right - basis @ (basis.T @ right))).square().sum()
    return basis.float(), float((1 - lost / whole).clamp(0, 1))


def diagonal_within(basis: torch.Tensor, spectrum: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Turns a basis ``(D, r)`` within its span until the quadratic form ``diag(spectrum)`` is diagonal there.

    Returns:
        The turned basis, and the form's diagonal ``(r,)``.
    """
    form = basis.double().T @ (spectrum.double()[:, None] * basis.double())
    values, turn = torch.linalg.eigh(form)
    order = values.argsort(descending=True)
    return (basis.double() @ turn[:, order]).float(), values[order].float()


def _covariance(vectors: torch.Tensor) -> torch.Tensor:
    rows = vectors.double()
    form = rows.T @ rows / max(1, len(rows))
    return form + torch.eye(form.shape[0], dtype=form.dtype) * (RIDGE * form.diagonal().mean().clamp(min=1e-30))


def _root(vectors: torch.Tensor) -> torch.Tensor:
    return torch.linalg.cholesky(_covariance(vectors))


def _kept(singular: torch.Tensor, rank: int) -> float:
    squares = singular.square()
    return float((squares[:rank].sum() / squares.sum().clamp(min=1e-300)).clamp(0, 1))

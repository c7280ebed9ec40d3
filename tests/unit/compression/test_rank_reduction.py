"""Fewer columns that keep what users score."""

from __future__ import annotations

import torch

from compression.rank_reduction import diagonal_within, joint_factors, shared_basis

GENERATOR = torch.Generator().manual_seed(0)
USERS = torch.randn(400, 10, generator=GENERATOR) * torch.tensor([5.0, 4, 3, 2, 1, 0.5, 0.1, 0.1, 0.1, 0.1])
ITEMS = torch.randn(300, 10, generator=GENERATOR) * torch.tensor([0.1, 1, 1, 1, 1, 1, 1, 1, 1, 5.0])


def error_of(users: torch.Tensor, items: torch.Tensor) -> float:
    scores = USERS @ ITEMS.T
    return float((users @ items.T - scores).square().sum() / scores.square().sum())


def test_full_rank_is_exact() -> None:
    factors = joint_factors(USERS, ITEMS, 10)
    assert error_of(USERS @ factors.of_users, ITEMS @ factors.of_items) < 1e-8
    assert factors.energy > 1 - 1e-9


def test_energy_is_the_share_of_the_scores_that_is_kept() -> None:
    factors = joint_factors(USERS, ITEMS, 4)
    assert abs(error_of(USERS @ factors.of_users, ITEMS @ factors.of_items) - (1 - factors.energy)) < 1e-4


def test_joint_factors_keep_more_than_the_items_own_principal_directions() -> None:
    factors = joint_factors(USERS, ITEMS, 4)
    _, _, directions = torch.linalg.svd(ITEMS, full_matrices=False)
    own = directions[:4].T
    assert error_of(USERS @ factors.of_users, ITEMS @ factors.of_items) < error_of(USERS @ own, ITEMS @ own)


def test_shared_basis_is_orthonormal_and_its_energy_true() -> None:
    basis, energy = shared_basis(USERS, ITEMS, 6)
    torch.testing.assert_close(basis.T @ basis, torch.eye(6), atol=1e-5, rtol=0)
    assert abs(error_of(USERS @ basis, ITEMS @ basis) - (1 - energy)) < 1e-4


def test_diagonal_within_keeps_the_span_and_makes_the_form_diagonal() -> None:
    basis, _ = shared_basis(USERS, ITEMS, 5)
    spectrum = torch.linspace(4, 1, 10)
    turned, diagonal = diagonal_within(basis, spectrum)
    torch.testing.assert_close(turned.T @ torch.diag(spectrum) @ turned, torch.diag(diagonal), atol=1e-5, rtol=0)
    torch.testing.assert_close(turned @ turned.T, basis @ basis.T, atol=1e-5, rtol=0)

"""One table in place of two that differ by a factor per item: nothing is lost, and each item is stored once."""

from __future__ import annotations

import torch

CLOSEST = 1e-5
"""Largest error of a row, relative to its length, that still counts as rounding of float32."""


def factor_per_row(table: torch.Tensor, base: torch.Tensor) -> torch.Tensor | None:
    """The factors ``c`` float32 ``(N,)`` with ``table = c[:, None] * base``, None where there are none.

    Args:
        table: float32 ``(N, D)``.
        base: Of the same shape; rows of zeros have factor 0.
    """
    if table.shape != base.shape:
        return None
    wide, own = base.double(), table.double()
    factors = (wide * own).sum(1) / wide.square().sum(1).clamp(min=torch.finfo(torch.float64).tiny)
    errors = (factors[:, None] * wide - own).square().sum(1).sqrt()
    within = errors <= CLOSEST * own.square().sum(1).sqrt()
    return factors.float() if bool(within.all()) else None

"""The vector of a user without a history, from attribute codes: part of a recall model's served graph."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.features import UNKNOWN, FeatureColumn


class Newcomers(nn.Module):
    """Sums one vector per attribute value; tags are added up, unknown values add nothing.

    Args:
        vectors: float32 ``(values + 1, D)``, row 0 zero: it stands for unknown in every attribute.
        offsets: int64 ``(F,)``, what is added to a slot's codes to find its rows.
    """

    vectors: Tensor
    offsets: Tensor

    def __init__(self, vectors: Tensor, offsets: Tensor) -> None:
        super().__init__()
        self.register_buffer("vectors", vectors.float().contiguous())
        self.register_buffer("offsets", offsets)

    @classmethod
    def unknown(cls, columns: tuple[FeatureColumn, ...], dimension: int) -> Newcomers:
        """No value says anything yet."""
        offsets, total = [], 0
        for column in columns:
            offsets += [total] * column.width
            total += column.cardinality - 1
        return cls(torch.zeros(total + 1, dimension), torch.tensor(offsets, dtype=torch.int64))

    def forward(self, user_features: Tensor) -> Tensor:
        """Vectors float32 ``(B, D)`` of attribute codes ``(B, F)``."""
        return self.sum_of(self.vectors, user_features)

    def sum_of(self, vectors: Tensor, user_features: Tensor) -> Tensor:
        """The same by another table."""
        known = (user_features > UNKNOWN).to(user_features.dtype)
        return F.embedding((user_features + self.offsets) * known, vectors).sum(1)

"""Embeddings of attribute codes, one vector per attribute, tags averaged."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from core.features import UNKNOWN, FeatureColumn


class AttributeEmbedding(nn.Module):
    """Codes ``(..., F)`` to ``(..., columns x dimension)``.

    All attributes share one table; its row 0 stays zero and stands for UNKNOWN in every attribute. Several slots of
    one attribute (tags) give the mean of the known ones. Without attributes a single unknown slot is read, so that the
    input tensor keeps its place in the graph.

    Args:
        columns: The attributes in slot order.
        dimension: Width of each attribute's vector.
    """

    offsets: Tensor

    def __init__(self, columns: tuple[FeatureColumn, ...], dimension: int) -> None:
        super().__init__()
        columns = columns or (FeatureColumn("none", "category", 1, 1),)
        offsets, total = [], 0
        for column in columns:
            offsets += [total] * column.width
            total += column.cardinality - 1  # UNKNOWN is shared
        self.widths = [column.width for column in columns]
        self.register_buffer("offsets", torch.tensor(offsets, dtype=torch.int64))
        self.table = nn.Embedding(total + 1, dimension, padding_idx=UNKNOWN)
        nn.init.normal_(self.table.weight, std=0.05)
        with torch.no_grad():
            self.table.weight[UNKNOWN].zero_()

    @property
    def width(self) -> int:
        """Width of the output."""
        return len(self.widths) * self.table.embedding_dim

    def forward(self, codes: Tensor) -> Tensor:
        known = codes > UNKNOWN
        vectors = self.table(torch.where(known, codes + self.offsets, torch.zeros_like(codes)))  # (..., F, d)
        counts = known.to(vectors.dtype)
        parts, start = [], 0
        for width in self.widths:
            part = vectors[..., start : start + width, :].sum(-2)
            parts.append(part / counts[..., start : start + width].sum(-1, keepdim=True).clamp(min=1))
            start += width
        return torch.cat(parts, -1)

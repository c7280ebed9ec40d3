"""The served form of a table in tiers: bit planes in the file, unpacked once when ONNX Runtime loads the graph."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from compression.forms import MaskedColumn
from compression.tiers import Tiered, in_item_order, popularity_order, row_scales, unpack_planes


class UnpackedTiers(nn.Module):
    """Constants of a graph whose folding gives the float32 table.

    Args:
        table: Codes.
        popularity: float16 ``(I,)``, from which the order of rows is found again.
    """

    row_scale: torch.Tensor
    scale_range: torch.Tensor
    columns: torch.Tensor

    def __init__(self, table: Tiered, popularity: torch.Tensor) -> None:
        super().__init__()
        self.sizes = [(rows, bits) for _, rows, bits in table.parts()]
        for at, plane in enumerate(table.planes):
            self.register_buffer(f"plane{at}", plane)
        self.register_buffer("row_scale", table.row_scale)
        self.register_buffer("scale_range", table.scale_range)
        self.register_buffer("columns", table.columns)
        self.popularity = MaskedColumn(popularity)

    def table(self) -> torch.Tensor:
        """float32 ``(I + 1, D)``."""
        width = len(self.columns)
        steps = [
            unpack_planes(getattr(self, f"plane{at}"), rows, width, bits) for at, (rows, bits) in enumerate(self.sizes)
        ]
        scaled = torch.cat(steps) * row_scales(self.row_scale, self.scale_range)[:, None]
        return in_item_order([scaled], popularity_order(self.popularity())) * self.columns

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Vectors float32 ``(B, L, D)`` of rows ``(B, L)``."""
        return F.embedding(rows, self.table())

    def scan(self, vectors: torch.Tensor) -> torch.Tensor:
        """Products ``(B, I + 1)`` of vectors ``(B, D)`` with all rows."""
        return vectors @ self.table().T

"""The content tower: what an item is made of in, the vectors and the bias that a recall model would give it out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.features import UNKNOWN
from training.content.inputs import ContentInputs


@dataclass(frozen=True)
class Predicted:
    """What the tower says of all items.

    Attributes:
        tables: float32 ``(I, D)`` each, by the name of the recall model's table.
        bias: float32 ``(I,)``.
    """

    tables: dict[str, Tensor]
    bias: Tensor


class ContentTower(nn.Module):
    """Late fusion (Gantner et al. 2010 learn attribute-to-vector maps; the modalities' sum is ours).

    Every modality is projected to one content vector of width C: an attribute by the mean of its values' embeddings,
    a dense block by a matrix. The present ones are added, each with a learned gate; a missing one adds nothing. A
    linear head gives the recall model's vectors. A hidden layer lowered the quality on held-out items.

    Args:
        inputs: Gives the attributes and the widths of the blocks.
        heads: Width of each of the recall model's tables.
        dimension: C.
        dropout: Share of the values, and of a block's numbers, that are left out while training.
        generator: Draws the start values.
    """

    offsets: Tensor
    slots: Tensor
    scales: Tensor

    def __init__(
        self,
        inputs: ContentInputs,
        heads: dict[str, int],
        dimension: int,
        dropout: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        offsets, slots, total = [], [], 0
        for place, column in enumerate(inputs.columns):
            offsets += [total] * column.width
            slots += [place] * column.width
            total += column.cardinality - 1  # UNKNOWN is shared
        self.heads = dict(heads)
        self.n_columns = max(1, len(inputs.columns))
        self.dropout = dropout
        self.register_buffer("offsets", torch.tensor(offsets or [0], dtype=torch.int64))
        self.register_buffer("slots", torch.tensor(slots or [0], dtype=torch.int64))
        normal = lambda *shape, std: nn.Parameter(torch.randn(*shape, generator=generator) * std)  # noqa: E731
        self.values = normal(total + 1, dimension, std=0.05)
        self.projections = nn.ParameterDict(
            {name: normal(block.vectors.shape[1], dimension, std=0.05) for name, block in inputs.blocks.items()}
        )
        self.gates = nn.ParameterDict({name: nn.Parameter(torch.ones(())) for name in ("attributes", *inputs.blocks)})
        self.head = normal(dimension, sum(heads.values()) + 1, std=0.05)
        self.start = nn.Parameter(torch.zeros(sum(heads.values()) + 1))
        self.log_temperature = nn.Parameter(torch.zeros(()))
        self.register_buffer("scales", torch.ones(len(heads)))

    def size(self) -> Tensor:
        """Squared norm of what can overfit."""
        return (
            self.values.square().sum()
            + self.head.square().sum()
            + sum((matrix.square().sum() for matrix in self.projections.values()), torch.zeros(()))
        )

    def content(self, inputs: ContentInputs, rows: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Content vectors ``(n, C)`` of items ``rows`` ``(n,)``; with a generator, parts are dropped at random."""
        codes = inputs.codes[rows]
        known = (codes > UNKNOWN).float()
        per_column = torch.zeros(len(rows), self.n_columns).index_add_(1, self.slots, known)
        weights = known / per_column.clamp(min=1)[:, self.slots]  # (n, F): a column's values are averaged
        weights = self._dropped(weights, generator)
        places = torch.where(codes > UNKNOWN, codes + self.offsets, torch.zeros_like(codes))
        result = self.gates["attributes"] * F.embedding_bag(places, self.values, per_sample_weights=weights, mode="sum")
        for name, block in inputs.blocks.items():
            vectors = self._dropped(block.vectors[rows], generator)
            result = result + self.gates[name] * block.present[rows] * (vectors @ self.projections[name])
        return result

    def forward(self, inputs: ContentInputs, rows: Tensor, generator: torch.Generator | None = None) -> Predicted:
        out = self.content(inputs, rows, generator) @ self.head + self.start
        *tables, bias = out.split([*self.heads.values(), 1], dim=1)
        scaled = {name: table * scale for name, table, scale in zip(self.heads, tables, self.scales, strict=True)}
        return Predicted(scaled, bias[:, 0])

    def _dropped(self, values: Tensor, generator: torch.Generator | None) -> Tensor:
        if generator is None or self.dropout == 0:
            return values
        kept = torch.rand(values.shape, generator=generator) >= self.dropout
        return values * kept / (1 - self.dropout)

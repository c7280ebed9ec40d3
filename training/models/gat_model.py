"""The graph model as it is served: item vectors are propagated beforehand, the user attends to the history."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import torch
from torch import nn

from core.tensors import MASKED
from training.models.gat_layers import EdgeScalars
from training.models.recall_base import RecallModel


class GatRecall(RecallModel):
    """Dense masked attention with the weights of :class:`training.models.gat_layers.HistoryAttention`.

    Head by head ``x = gain * n^power * sum_l softmax_l(scalars) h_l`` over the history's ``n`` items; the heads'
    vectors stand side by side.

    Args:
        history_vectors: float32 ``(I + 1, D)``, propagated, last row zero: an item's say as part of a history; H
            parts of equal width.
        item_vectors: float32 ``(I + 1, D)``, propagated, last row zero: an item as a candidate.
        item_bias: float32 ``(I + 1,)``, learned.
        empty_bias: float32 ``(I + 1,)``.
        scalars: Attention logits.
        length_scale: float32 ``(2, H)``, logarithm of the gain, and the power.
        candidates: K.
    """

    kind: ClassVar[str] = "gat"
    history_vectors: torch.Tensor
    length_scale: torch.Tensor

    def __init__(
        self,
        history_vectors: torch.Tensor,
        item_vectors: torch.Tensor,
        item_bias: torch.Tensor,
        empty_bias: torch.Tensor,
        scalars: EdgeScalars,
        length_scale: torch.Tensor,
        *,
        candidates: int,
    ) -> None:
        super().__init__(item_vectors, item_bias, empty_bias, candidates)
        self.register_buffer("history_vectors", history_vectors.float().contiguous())
        self.register_buffer("length_scale", length_scale.float().contiguous())
        self.scalars = scalars
        for parameter in self.parameters():
            parameter.requires_grad_(False)

    def attention(
        self, rows: torch.Tensor, ages: torch.Tensor, values: torch.Tensor, kinds: torch.Tensor
    ) -> torch.Tensor:
        """Attention weights float32 ``(B, L, H)``: they add up to 1 over a user's history and are 0 where padded."""
        present = (rows != self.n_items).to(ages.dtype)
        positions = torch.arange(rows.shape[1], device=rows.device).to(ages.dtype)
        since_first = ages.amax(dim=1, keepdim=True) - ages
        logits = self.scalars(rows, positions, ages, since_first, values, kinds)
        present = present.unsqueeze(2)
        return torch.softmax(logits * present + (1 - present) * MASKED, dim=1) * present

    def user_vectors(
        self, rows: torch.Tensor, ages: torch.Tensor, values: torch.Tensor, kinds: torch.Tensor
    ) -> torch.Tensor:
        """See the base class."""
        weights = self.attention(rows, ages, values, kinds)  # (B, L, H)
        history = self.rows_of("history_vectors", rows)  # (B, L, D)
        lengths = (rows != self.n_items).to(ages.dtype).sum(dim=1, keepdim=True)
        factors = length_factor(lengths, self.length_scale)  # (B, H)
        width = self.dimension // weights.shape[2]
        parts = [
            (weights[:, :, head].unsqueeze(1) @ history[:, :, head * width : (head + 1) * width]).squeeze(1)
            * factors[:, head : head + 1]
            for head in range(weights.shape[2])
        ]
        return torch.cat(parts, dim=1)

    def facts(self) -> dict[str, Any]:
        return {}

    @classmethod
    def from_tensors(cls, tensors: dict[str, torch.Tensor], facts: dict[str, Any]) -> Self:
        prefix = "scalars."
        scalars = EdgeScalars(len(tensors["item_bias"]) - 1, *tensors[f"{prefix}kind"].shape)
        scalars.load_state_dict(
            {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        )
        return cls(
            tensors["history_vectors"],
            tensors["item_vectors"],
            tensors["item_bias"],
            tensors["empty_bias"],
            scalars,
            tensors["length_scale"],
            candidates=facts["candidates"],
        )


def length_factor(lengths: torch.Tensor, length_scale: torch.Tensor | nn.Parameter) -> torch.Tensor:
    """``gain * n^power``, ``(B, H)`` for ``lengths`` float ``(B, 1)``; 1 event's factor for empty histories."""
    return torch.exp(length_scale[0] + length_scale[1] * torch.log(torch.clamp(lengths, min=1.0)))

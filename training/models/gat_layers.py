"""Attention layers of the graph model: messages over PyG edges, without transforms and without nonlinearity.

The form is LightGCN's (He et al. 2020) with attention as in NGAT4Rec (Song et al. 2021): neighbours are weighed by
embedding similarity and by what is known about the edge, never multiplied by a matrix.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from torch_geometric.nn import MessagePassing
from torch_geometric.utils import softmax

AGE_KNOTS = 9
"""Log-spaced knots for days: the last stands at e^8 - 1 days, 8 years."""
POSITION_KNOTS = 10
"""Log-spaced knots for the place in the history: the last stands at e^9 - 1, beyond the longest history."""


class EdgeScalars(nn.Module):
    """Attention logit of an event from its place, age, time since the user's first event, value and item.

    Piecewise linear in the logarithms of place and days. Elementwise: takes the edges of a graph ``(E,)`` and padded
    histories ``(B, L)`` alike, so that training and the served graph share the same weights.
    """

    def __init__(self, n_items: int) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.zeros(POSITION_KNOTS))
        self.age = nn.Parameter(torch.zeros(AGE_KNOTS))
        self.since_first = nn.Parameter(torch.zeros(AGE_KNOTS))
        self.value = nn.Parameter(torch.zeros(2))
        self.item = nn.Parameter(torch.zeros(n_items + 1))

    def forward(
        self,
        rows: torch.Tensor,
        positions: torch.Tensor,
        ages: torch.Tensor,
        since_first: torch.Tensor,
        values: torch.Tensor,
    ) -> torch.Tensor:
        """Logits float32, same shape as each argument (``positions`` may broadcast); ages in days."""
        return (
            _piecewise(torch.log1p(positions), self.position)
            + _piecewise(torch.log1p(ages), self.age)
            + _piecewise(torch.log1p(since_first), self.since_first)
            + values * (self.value[0] + self.value[1] * values)
            + F.embedding(rows, self.item[:, None]).squeeze(-1)
        )


class HistoryAttention(MessagePassing):
    """User vectors from item vectors over the bipartite edges item → user: a softmax per user, then a sum."""

    def __init__(self) -> None:
        super().__init__(aggr="add")

    def forward(
        self, item_vectors: torch.Tensor, edge_index: torch.Tensor, logits: torch.Tensor, n_users: int
    ) -> torch.Tensor:
        """Mean item vector under attention, ``(U, D)``; zero for users without edges.

        Args:
            item_vectors: ``(I, D)``.
            edge_index: int64 ``(2, E)``, item rows above user rows.
            logits: ``(E,)``.
            n_users: U.
        """
        weights = softmax(logits, edge_index[1], num_nodes=n_users)
        return self.propagate(edge_index, x=(item_vectors, None), weights=weights, size=(len(item_vectors), n_users))

    def message(self, x_j: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        return weights[:, None] * x_j


class ItemAttention(MessagePassing):
    """One propagation over the item graph: each item becomes a mixture of itself and of its near items.

    Near items are weighed by a softmax of ``temperature * cosine(x_i, x_j) + sharpness * log weight``; the start
    (0, 1) is the graph's own normalised weights. Items without near items stay themselves.
    """

    def __init__(self) -> None:
        super().__init__(aggr="add")
        self.temperature = nn.Parameter(torch.tensor(0.0))
        self.sharpness = nn.Parameter(torch.tensor(1.0))
        self.mix = nn.Parameter(torch.tensor(0.0))
        """Logit of the near items' share; 0 is LightGCN's mean of both layers."""

    def forward(self, item_vectors: torch.Tensor, edge_index: torch.Tensor, log_weights: torch.Tensor) -> torch.Tensor:
        """Vectors after one propagation, ``(I, D)``.

        Args:
            item_vectors: ``(I, D)``.
            edge_index: int64 ``(2, E)``, near item above listening item.
            log_weights: ``(E,)``.
        """
        unit = F.normalize(item_vectors, dim=1)
        cosine = (unit[edge_index[0]] * unit[edge_index[1]]).sum(1)
        logits = self.temperature * cosine + self.sharpness * log_weights
        weights = softmax(logits, edge_index[1], num_nodes=len(item_vectors))
        near = self.propagate(edge_index, x=item_vectors, weights=weights)
        linked = torch.zeros(len(item_vectors), 1, device=item_vectors.device).index_fill_(0, edge_index[1], 1.0)
        share = torch.sigmoid(self.mix) * linked
        return item_vectors + share * (near - item_vectors)

    def message(self, x_j: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        return weights[:, None] * x_j


def _piecewise(x: torch.Tensor, heights: torch.Tensor) -> torch.Tensor:
    """Linear interpolation of ``heights`` at the knots 0, 1, 2, …; constant beyond the last."""
    knots = torch.arange(len(heights), device=x.device, dtype=x.dtype)
    inside = torch.clamp(x, max=float(len(heights) - 1)).unsqueeze(-1)
    return torch.relu(1 - (inside - knots).abs()) @ heights

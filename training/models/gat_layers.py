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

from training.models.sparse_sum import SparseSum

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

    Args:
        edge_index: int64 ``(2, E)``, near item above listening item, sorted by listening, then near item.
        log_weights: float32 ``(E,)``.
        n_items: I.
    """

    edge_index: torch.Tensor
    log_weights: torch.Tensor
    similarity: torch.Tensor
    linked: torch.Tensor

    def __init__(self, edge_index: torch.Tensor, log_weights: torch.Tensor, n_items: int) -> None:
        super().__init__(aggr="add")
        self.temperature = nn.Parameter(torch.tensor(0.0))
        self.sharpness = nn.Parameter(torch.tensor(1.0))
        self.mix = nn.Parameter(torch.tensor(0.0))
        """Logit of the near items' share; 0 is LightGCN's mean of both layers."""
        self.edges_by_target = SparseSum(edge_index, n_items)
        self.register_buffer("edge_index", edge_index)
        self.register_buffer("log_weights", log_weights)
        self.register_buffer("similarity", torch.zeros_like(log_weights))
        self.register_buffer("linked", torch.zeros(n_items, 1).index_fill_(0, edge_index[1], 1.0))

    @torch.no_grad()
    def refresh_similarity(self, item_vectors: torch.Tensor) -> None:
        """Takes the cosines from ``item_vectors`` ``(I, D)``: vectors move slowly, so once per epoch will do."""
        unit = F.normalize(item_vectors, dim=1)
        self.similarity.copy_((unit[self.edge_index[0]] * unit[self.edge_index[1]]).sum(1))

    def forward(self, item_vectors: torch.Tensor, fused: bool = True) -> torch.Tensor:
        """Vectors after one propagation, ``(I, D)``.

        Args:
            item_vectors: ``(I, D)``.
            fused: Sum by sparse products instead of one message per edge; the same result.
        """
        logits = self.temperature * self.similarity + self.sharpness * self.log_weights
        weights = softmax(logits, self.edge_index[1], num_nodes=len(item_vectors))
        adjacency = self.edges_by_target.matrix(self.log_weights) if fused else self.edge_index
        near = self.propagate(adjacency, x=item_vectors, weights=weights)
        return item_vectors + torch.sigmoid(self.mix) * self.linked * (near - item_vectors)

    def message(self, x_j: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        return weights[:, None] * x_j

    def message_and_aggregate(self, edge_index: torch.Tensor, x: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """PyG's fused path, taken for sparse adjacencies; ``edge_index`` gives nothing but the pattern."""
        return self.edges_by_target(weights, x)


def _piecewise(x: torch.Tensor, heights: torch.Tensor) -> torch.Tensor:
    """Linear interpolation of ``heights`` at the knots 0, 1, 2, …; constant beyond the last."""
    knots = torch.arange(len(heights), device=x.device, dtype=x.dtype)
    inside = torch.clamp(x, max=float(len(heights) - 1)).unsqueeze(-1)
    return torch.relu(1 - (inside - knots).abs()) @ heights

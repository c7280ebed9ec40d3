"""Attention layers of the graph model: messages over PyG edges, without transforms and without nonlinearity.

The form is LightGCN's (He et al. 2020) with attention as in NGAT4Rec (Song et al. 2021): neighbours are weighed by
embedding similarity and by what is known about the edge, never multiplied by a matrix.
"""

from __future__ import annotations

import numpy as np
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
    """Attention logits of an event from its place, age, time since the user's first event, value, kind and item.

    Piecewise linear in the logarithms of place and days. Elementwise: takes the edges of a graph ``(E,)`` and padded
    histories ``(B, L)`` alike, so that training and the served graph share the same weights. Every head has its own.

    Args:
        n_items: I.
        n_kinds: How many kinds of events there are, the unknown one included; one alone has no logit.
        heads: H.
    """

    def __init__(self, n_items: int, n_kinds: int = 1, heads: int = 1) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.zeros(POSITION_KNOTS, heads))
        self.age = nn.Parameter(torch.zeros(AGE_KNOTS, heads))
        self.since_first = nn.Parameter(torch.zeros(AGE_KNOTS, heads))
        self.value = nn.Parameter(torch.zeros(2, heads))
        self.kind = nn.Parameter(torch.zeros(n_kinds, heads))
        self.item = nn.Parameter(torch.zeros(n_items + 1, heads))

    def freeze(self, *, times: bool, values: bool) -> None:
        """Keeps the logits of times (order, ages) or of values where they are: at 0 before training."""
        for parameter in (self.position, self.age, self.since_first):
            parameter.requires_grad_(not times)
        self.value.requires_grad_(not values)

    @torch.no_grad()
    def fill_unknown_kind(self, kinds: np.ndarray) -> None:
        """Gives the unknown kind, where training never met it, the mean logit of the events' ``kinds`` ``(E,)``: items
        of a running session come without one."""
        counts = torch.from_numpy(np.bincount(kinds, minlength=len(self.kind))).to(self.kind)
        if counts[0] == 0:
            self.kind[0] = (counts[:, None] * self.kind).sum(0) / counts.sum()

    def forward(
        self,
        rows: torch.Tensor,
        positions: torch.Tensor,
        ages: torch.Tensor,
        since_first: torch.Tensor,
        values: torch.Tensor,
        kinds: torch.Tensor,
    ) -> torch.Tensor:
        """Logits float32 ``(..., H)`` for arguments of shape ``(...)`` (``positions`` may broadcast); ages in days."""
        values = values.unsqueeze(-1)
        logits = (
            _piecewise(torch.log1p(positions), self.position)
            + _piecewise(torch.log1p(ages), self.age)
            + _piecewise(torch.log1p(since_first), self.since_first)
            + values * (self.value[0] + self.value[1] * values)
            + F.embedding(rows, self.item)
        )
        return logits + F.embedding(kinds, self.kind) if len(self.kind) > 1 else logits


class HistoryAttention(MessagePassing):
    """User vectors from item vectors over the bipartite edges item → user: a softmax per user, then a sum."""

    def __init__(self) -> None:
        super().__init__(aggr="add")

    def forward(
        self, item_vectors: torch.Tensor, edge_index: torch.Tensor, logits: torch.Tensor, n_users: int
    ) -> torch.Tensor:
        """Mean item vector under attention, ``(U, D)``; zero for users without edges.

        Args:
            item_vectors: ``(I, D)``, H parts of equal width: each head weighs its own.
            edge_index: int64 ``(2, E)``, item rows above user rows.
            logits: ``(E, H)``.
            n_users: U.
        """
        weights = softmax(logits, edge_index[1], num_nodes=n_users)
        return self.propagate(edge_index, x=(item_vectors, None), weights=weights, size=(len(item_vectors), n_users))

    def message(self, x_j: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        heads = weights.shape[1]
        return (weights[:, :, None] * x_j.view(len(x_j), heads, x_j.shape[1] // heads)).flatten(1)


class ItemAttention(MessagePassing):
    """One propagation over the item graph: each item becomes a mixture of itself and of its near items.

    Near items are weighed by a softmax of ``temperature * cosine(x_i, x_j) + sharpness * log weight``; the start
    (0, 1) is the graph's own normalised weights. Items without near items stay themselves. Every head looks at its
    own part of the vectors with its own temperature, sharpness and mixture.

    Args:
        edge_index: int64 ``(2, E)``, near item above listening item, sorted by listening, then near item.
        log_weights: float32 ``(E,)``.
        n_items: I.
        heads: H.
    """

    edge_index: torch.Tensor
    log_weights: torch.Tensor
    similarity: torch.Tensor
    linked: torch.Tensor

    def __init__(self, edge_index: torch.Tensor, log_weights: torch.Tensor, n_items: int, heads: int = 1) -> None:
        super().__init__(aggr="add")
        self.temperature = nn.Parameter(torch.zeros(heads))
        self.sharpness = nn.Parameter(torch.ones(heads))
        self.mix = nn.Parameter(torch.zeros(heads))
        """Logit of the near items' share; 0 is LightGCN's mean of both layers."""
        self.edges_by_target = SparseSum(edge_index, n_items)
        self.register_buffer("edge_index", edge_index)
        self.register_buffer("log_weights", log_weights)
        self.register_buffer("similarity", log_weights.new_zeros(len(log_weights), heads))
        self.register_buffer("linked", torch.zeros(n_items, 1).index_fill_(0, edge_index[1], 1.0))

    @torch.no_grad()
    def refresh_similarity(self, item_vectors: torch.Tensor) -> None:
        """Takes the cosines from ``item_vectors`` ``(I, D)``: vectors move slowly, so once per epoch will do."""
        for head, part in enumerate(item_vectors.chunk(len(self.mix), dim=1)):
            unit = F.normalize(part, dim=1)
            self.similarity[:, head] = (unit[self.edge_index[0]] * unit[self.edge_index[1]]).sum(1)

    def forward(self, item_vectors: torch.Tensor, fused: bool = True) -> torch.Tensor:
        """Vectors after one propagation, ``(I, D)``.

        Args:
            item_vectors: ``(I, D)``, H parts of equal width.
            fused: Sum by sparse products instead of one message per edge; the same result.
        """
        logits = self.temperature * self.similarity + self.sharpness * self.log_weights[:, None]  # (E, H)
        weights = softmax(logits, self.edge_index[1], num_nodes=len(item_vectors))
        adjacency = self.edges_by_target.matrix(self.log_weights) if fused else self.edge_index
        shares = torch.sigmoid(self.mix)
        parts = []
        for head, part in enumerate(item_vectors.chunk(len(self.mix), dim=1)):
            near = self.propagate(adjacency, x=part, weights=weights[:, head])
            parts.append(part + shares[head] * self.linked * (near - part))
        return torch.cat(parts, dim=1)

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

"""What corrects the blend: a network, boosted trees or a linear model, all over the same candidate features."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.models.mix_model import USER_FACTS
from training.models.ranker_attention import POOLED, HistoryView, TargetAttention
from training.models.ranker_attributes import AttributeEmbedding
from training.models.ranker_features import USER_STATISTICS, ItemTables, feature_width
from training.models.ranker_network import RankingNetwork
from training.models.ranker_shape import RankerShape
from training.models.ranker_trees import TreeSum

NETWORK, TREES, LINEAR = "network", "trees", "linear"
GATE_FACTS = USER_FACTS
LARGEST_LOGIT = 2.0
"""A user's facts multiply a share by e^2 at most."""


@dataclass(frozen=True)
class Candidates:
    """Users, their candidates, and everything about them that no trained weight touches.

    Attributes:
        tables: Item tables of the fit that made the candidates.
        rows: int64 ``(B, C)``.
        features: ``(B, C, F)``, see ``candidate_features``.
        history: The users' past.
        user_features: Codes ``(B, F)``.
    """

    tables: ItemTables
    rows: Tensor
    features: Tensor
    history: HistoryView
    user_features: Tensor


class Standardiser(nn.Module):
    """Features ``(..., F)`` minus their mean over their deviation in the training examples."""

    mean: Tensor
    scale: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))

    def forward(self, features: Tensor) -> Tensor:
        return (features - self.mean) / self.scale


class NetworkMember(nn.Module):
    """DCN-v2 over features, attributes and target attention; exactly 0 before training.

    Args:
        shape: Sizes.
    """

    def __init__(self, shape: RankerShape) -> None:
        super().__init__()
        plain = feature_width(len(shape.sources))
        self.standard = Standardiser(plain)
        self.item_attributes = AttributeEmbedding(shape.item_columns, shape.embedding)
        self.user_attributes = AttributeEmbedding(shape.user_columns, shape.embedding)
        self.attention = TargetAttention(shape.dimension)
        width = plain + POOLED + self.item_attributes.width + self.user_attributes.width
        self.network = RankingNetwork(width, shape.cross_layers, shape.hidden, shape.dropout)

    def forward(self, candidates: Candidates) -> Tensor:
        """Corrections ``(B, C)``."""
        rows, history, tables = candidates.rows, candidates.history, candidates.tables
        queries, keys = F.embedding(rows, tables.keys), F.embedding(history.rows, tables.keys)
        user = self.user_attributes(candidates.user_features)
        parts = [
            self.standard(candidates.features),
            self.attention(queries, keys, history),
            self.item_attributes(F.embedding(rows, tables.codes)),
            user.unsqueeze(1).expand(-1, rows.shape[1], -1),
        ]
        correction: Tensor = self.network(torch.cat(parts, -1))
        return correction


class LinearMember(nn.Module):
    """A weight per feature; exactly 0 before training.

    Args:
        shape: Sizes.
    """

    def __init__(self, shape: RankerShape) -> None:
        super().__init__()
        width = feature_width(len(shape.sources))
        self.standard = Standardiser(width)
        self.weight = nn.Parameter(torch.zeros(width))

    def forward(self, candidates: Candidates) -> Tensor:
        """Corrections ``(B, C)``."""
        return self.of_features(candidates.features)

    def of_features(self, features: Tensor) -> Tensor:
        """Corrections ``(B, C)``."""
        return self.standard(features) @ self.weight


class TreesMember(nn.Module):
    """Boosted trees over the features; exactly 0 before training.

    Args:
        shape: Sizes; ``trees`` and ``tree_depth`` are those of the sum.
    """

    def __init__(self, shape: RankerShape) -> None:
        super().__init__()
        self.sum = TreeSum(shape.trees, shape.tree_depth)

    def forward(self, candidates: Candidates) -> Tensor:
        """Corrections ``(B, C)``."""
        return self.of_features(candidates.features)

    def of_features(self, features: Tensor) -> Tensor:
        """Corrections ``(B, C)``."""
        correction: Tensor = self.sum(features)
        return correction


KINDS: dict[str, type[NetworkMember] | type[LinearMember] | type[TreesMember]] = {
    NETWORK: NetworkMember,
    TREES: TreesMember,
    LINEAR: LinearMember,
}


class Correction(nn.Module):
    """Members added up: ``sum_m share_m exp(gate_m . facts(u)) member_m``.

    Args:
        shape: Sizes; ``members`` names them.
    """

    shares: Tensor
    gate: Tensor

    def __init__(self, shape: RankerShape) -> None:
        super().__init__()
        count = len(shape.members)
        self.members = nn.ModuleList([KINDS[name](shape) for name in shape.members])
        self.facts = Standardiser(GATE_FACTS)
        self.register_buffer("shares", torch.full((count,), 1 / count))
        self.register_buffer("gate", torch.zeros(count, GATE_FACTS))

    def forward(self, candidates: Candidates) -> Tensor:
        """Corrections ``(B, C)``, masked candidates not yet masked."""
        shares = user_shares(self.shares, self.gate, self.facts(gate_facts(candidates.features)))  # (B, M)
        total = torch.zeros_like(candidates.features[..., 0])
        for at, member in enumerate(self.members):
            total = total + shares[:, at : at + 1] * member(candidates)
        return total

    def attention(self) -> TargetAttention | None:
        """That of the first network; None where no member is one."""
        return next((member.attention for member in self.members if isinstance(member, NetworkMember)), None)


def gate_facts(features: Tensor) -> Tensor:
    """What shares may depend on, ``(B, GATE_FACTS)``: logarithms of the history's length and span."""
    return features[:, 0, -USER_STATISTICS : GATE_FACTS - USER_STATISTICS]


def user_shares(shares: Tensor, gate: Tensor, facts: Tensor) -> Tensor:
    """Each user's shares ``(B, M)``.

    Args:
        shares: ``(M,)``, for a user of average facts.
        gate: ``(M, GATE_FACTS)``.
        facts: Standardised, ``(B, GATE_FACTS)``.
    """
    return shares * torch.exp(torch.clamp(facts @ gate.T, -LARGEST_LOGIT, LARGEST_LOGIT))

"""The ranker: merges the recall lists and orders the union for the user, in one exportable module."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.tensors import EXPLANATIONS, MASKED
from training.models.ranker_attention import POOLED, HistoryView, TargetAttention, view_history
from training.models.ranker_attributes import AttributeEmbedding
from training.models.ranker_features import (
    ItemTables,
    candidate_features,
    feature_width,
)
from training.models.ranker_merge import merge
from training.models.ranker_network import RankingNetwork
from training.models.ranker_shape import RankerShape


class Ranker(nn.Module):
    """DCN-v2 over recall scores, item statistics, attributes and target attention, on top of a blend of the scores.

    ``score = sum over sources of w z + strength * network``; the network starts at exactly 0, so that an untrained
    ranker is the blend. ``strength`` is chosen on held-out users and is 0 where the network does not help.

    Args:
        shape: Sizes.
        tables: Item tables of the fit that the ranker is used with.
    """

    blend: Tensor
    strength: Tensor
    feature_mean: Tensor
    feature_scale: Tensor

    def __init__(self, shape: RankerShape, tables: ItemTables) -> None:
        super().__init__()
        self.shape = shape
        self.tables = tables
        self.item_attributes = AttributeEmbedding(shape.item_columns, shape.embedding)
        self.user_attributes = AttributeEmbedding(shape.user_columns, shape.embedding)
        self.attention = TargetAttention(shape.dimension)
        plain = feature_width(len(shape.sources))
        width = plain + POOLED
        width += self.item_attributes.width + self.user_attributes.width
        self.network = RankingNetwork(width, shape.cross_layers, shape.hidden, shape.dropout)
        self.register_buffer("blend", torch.ones(len(shape.sources)))
        self.register_buffer("strength", torch.ones(()))
        self.register_buffer("feature_mean", torch.zeros(plain))
        self.register_buffer("feature_scale", torch.ones(plain))

    def with_tables(self, tables: ItemTables) -> Ranker:
        """A copy with the same weights over another fit's item tables."""
        other = copy.copy(self)
        other._modules = {**self._modules, "tables": tables}
        return copy.deepcopy(other)

    def forward(
        self,
        history_rows: Tensor,
        history_ages: Tensor,
        history_values: Tensor,
        user_features: Tensor,
        *candidates: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The served step: see ``core.tensors.rank_step`` for inputs and outputs.

        Args:
            history_rows: ``(B, L)``.
            history_ages: ``(B, L)``.
            history_values: ``(B, L)``.
            user_features: ``(B, F)``.
            candidates: Rows and scores ``(B, K)`` of each source in turn.

        Returns:
            ranked_rows ``(B, R)``, ranked_scores ``(B, R)``, reason_rows ``(B, R, 3)``, reason_weights ``(B, R, 3)``.
            Masked candidates come last with row I and score MASKED.
        """
        merged = merge(candidates[0::2], candidates[1::2])
        history = view_history(history_rows, history_ages, history_values, self.shape.n_items)
        features = candidate_features(self.tables, merged, history)
        scores = (merged.scores * self.blend).sum(-1)
        scores = scores + self.strength * self.correction(self.tables, merged.rows, features, history, user_features)
        scores = torch.where(merged.valid, scores, torch.full_like(scores, MASKED))
        ordered, places = _sort(scores)
        ranked_scores, places = ordered[:, : self.shape.returned], places[:, : self.shape.returned]
        found = ranked_scores > MASKED / 2
        rows = merged.rows.gather(1, places)
        ranked_rows = torch.where(found, rows, torch.full_like(rows, self.shape.n_items))
        return ranked_rows, ranked_scores, *self._reasons(ranked_rows, found, history)

    def correction(
        self, tables: ItemTables, rows: Tensor, features: Tensor, history: HistoryView, user_features: Tensor
    ) -> Tensor:
        """What the network adds to the blend, ``(B, C)``, masked candidates not yet masked.

        Args:
            tables: Item tables of the fit that made the candidates.
            rows: ``(B, C)``.
            features: From :func:`candidate_features`.
            history: The users' past.
            user_features: Codes ``(B, F)``.
        """
        queries, keys = F.embedding(rows, tables.keys), F.embedding(history.rows, tables.keys)
        parts = [
            (features - self.feature_mean) / self.feature_scale,
            self.attention(queries, keys, history),
            self.item_attributes(F.embedding(rows, tables.codes)),
            self.user_attributes(user_features).unsqueeze(1).expand(-1, rows.shape[1], -1),
        ]
        correction: Tensor = self.network(torch.cat(parts, -1))
        return correction

    def _reasons(self, ranked_rows: Tensor, found: Tensor, history: HistoryView) -> tuple[Tensor, Tensor]:
        queries, keys = F.embedding(ranked_rows, self.tables.keys), F.embedding(history.rows, self.tables.keys)
        weights = self.attention.weights(queries, keys, history)  # (B, R, L)
        weights = weights * (found.unsqueeze(-1) & history.mask.unsqueeze(1)).to(weights.dtype)
        top, places = torch.topk(weights, EXPLANATIONS, dim=-1)
        past = history.rows.unsqueeze(1).expand(-1, ranked_rows.shape[1], -1).gather(2, places)
        return torch.where(top > 0, past, torch.full_like(past, self.shape.n_items)), top


def _sort(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Best first, ties to the lower place. ONNX has no stable sort, but its TopK breaks ties that way itself."""
    if torch.compiler.is_exporting():
        return torch.sort(scores, dim=1, descending=True)
    return torch.sort(scores, dim=1, descending=True, stable=True)

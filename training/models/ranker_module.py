"""The ranker: merges the recall lists and orders the union for the user, in one exportable module."""

from __future__ import annotations

import copy
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.tensors import EXPLANATIONS, MASKED
from training.models.ranker_attention import HistoryView, TargetAttention, view_history
from training.models.ranker_features import PREDICTED_VALUE, ItemTables, candidate_features
from training.models.ranker_members import Candidates, Correction
from training.models.ranker_merge import merge
from training.models.ranker_shape import RankerShape


class Ranker(nn.Module):
    """A blend of the recall scores, corrected by members over the candidates' features.

    ``score = sum over sources of w z + value_weight * predicted value + strength * correction``; every member starts
    at exactly 0, so that an untrained ranker is what stands before them. ``strength`` is chosen on held-out users and
    is 0 where the correction does not help.

    Args:
        shape: Sizes.
        tables: Item tables of the fit that the ranker is used with.
    """

    blend: Tensor
    value_weight: Tensor
    strength: Tensor

    def __init__(self, shape: RankerShape, tables: ItemTables) -> None:
        super().__init__()
        self.shape = shape
        self.tables = tables
        self.correction = Correction(shape)
        self.plain_attention = None if self.correction.attention() else TargetAttention(shape.dimension)
        self.register_buffer("blend", torch.ones(len(shape.sources)))
        self.register_buffer("value_weight", torch.zeros(()))
        self.register_buffer("strength", torch.ones(()))

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
        *lists: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The served step: see ``core.tensors.rank_step`` for inputs and outputs.

        Args:
            history_rows: ``(B, L)``.
            history_ages: ``(B, L)``.
            history_values: ``(B, L)``.
            user_features: ``(B, F)``.
            lists: Rows and scores ``(B, K)`` of each source in turn.

        Returns:
            ranked_rows ``(B, R)``, ranked_scores ``(B, R)``, reason_rows ``(B, R, 3)``, reason_weights ``(B, R, 3)``.
            Masked candidates come last with row I and score MASKED.
        """
        merged = merge(lists[0::2], lists[1::2])
        history = view_history(history_rows, history_ages, history_values, self.shape.n_items)
        features = candidate_features(self.tables, merged, history, user_features)
        candidates = Candidates(self.tables, merged.rows, features, history, user_features)
        scores = self.base(merged.scores, features) + self.strength * self.correction(candidates)
        scores = torch.where(merged.valid, scores, torch.full_like(scores, MASKED))
        ordered, places = sort_scores(scores)
        ranked_scores, places = ordered[:, : self.shape.returned], places[:, : self.shape.returned]
        found = ranked_scores > MASKED / 2
        rows = merged.rows.gather(1, places)
        ranked_rows = torch.where(found, rows, torch.full_like(rows, self.shape.n_items))
        return ranked_rows, ranked_scores, *self._reasons(ranked_rows, found, history)

    def base(self, source_scores: Tensor, features: Tensor) -> Tensor:
        """Scores before the correction ``(B, C)``: the blend of ``(B, C, N)`` and the predicted value."""
        return (source_scores * self.blend).sum(-1) + self.value_weight * features[..., PREDICTED_VALUE]

    def _reasons(self, ranked_rows: Tensor, found: Tensor, history: HistoryView) -> tuple[Tensor, Tensor]:
        queries, keys = F.embedding(ranked_rows, self.tables.keys), F.embedding(history.rows, self.tables.keys)
        attention = self.correction.attention() or cast(TargetAttention, self.plain_attention)
        weights = attention.weights(queries, keys, history)  # (B, R, L)
        top, places = torch.topk(weights, EXPLANATIONS, dim=-1)
        known = history.mask.any(1)[:, None, None]  # beside an event padding weighs exactly 0; without any it is all
        top = top * (found.unsqueeze(-1) & known).to(top.dtype)
        past = history.rows.gather(1, places.flatten(1)).unflatten(1, (-1, EXPLANATIONS))
        return torch.where(top > 0, past, torch.full_like(past, self.shape.n_items)), top


def sort_scores(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Best first, ties to the lower place. ONNX has no stable sort, but its TopK breaks ties that way itself."""
    if torch.compiler.is_exporting():
        return torch.sort(scores, dim=1, descending=True)
    return torch.sort(scores, dim=1, descending=True, stable=True)

"""What the ranker looks up by item row, and the features that no trained weight touches."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.models.ranker_attention import HistoryView
from training.models.ranker_merge import Merged
from training.models.ranker_shape import STATISTICS, RankerShape
from training.ratings.model import ValuePosterior

SIMILARITIES = 5
"""Two popularities against the user's mean, highest and mean similarity, mean content match."""
PREDICTED_VALUES = 1
"""How the user would value the item, by the rating model of the same fit; 0 where the data has no values."""
USER_STATISTICS = 3
PREDICTED_VALUE = -USER_STATISTICS - 1
"""Its column among the features."""
STATISTICS_OF_HISTORY = 2
"""Leading item statistics compared with the user's mean: popularity and recent popularity."""


def feature_width(n_sources: int) -> int:
    """Number of features that no trained weight touches."""
    return 3 * n_sources + len(STATISTICS) + SIMILARITIES + PREDICTED_VALUES + USER_STATISTICS


class ItemTables(nn.Module):
    """What the ranker looks up by item row. A new fit brings new tables to the same weights.

    Args:
        vectors: ``(I + 1, D)`` recall's item vectors of any length, last row zero; stored with length 1.
        content: ``(I + 1, E)`` attribute vectors of length 1 or 0. Vectors and content side by side are the keys.
        statistics: ``(I + 1, S)``, standardised over items, see ``STATISTICS``.
        codes: int64 ``(I + 1, F)`` attribute codes, row I unknown; F at least 1.
        rating: Predicts the value that a user would give an item; None for data without values.
    """

    keys: Tensor
    statistics: Tensor
    codes: Tensor

    def __init__(
        self, vectors: Tensor, content: Tensor, statistics: Tensor, codes: Tensor, rating: ValuePosterior | None = None
    ) -> None:
        super().__init__()
        self.dimension = vectors.shape[1]
        self.register_buffer("keys", torch.cat([F.normalize(vectors.detach().float(), dim=1), content.float()], 1))
        self.register_buffer("statistics", statistics.float())
        self.register_buffer("codes", codes.long())
        self.rating = rating.requires_grad_(False) if rating is not None else None

    def predicted_values(self, rows: Tensor, history: HistoryView, user_features: Tensor) -> Tensor:
        """Standardised value ``(B, C)`` that the users would give the items ``rows`` ``(B, C)``: posterior mean."""
        if self.rating is None:
            return torch.zeros_like(rows, dtype=self.keys.dtype)
        return self.rating.predicted(history.rows, history.values, user_features, rows)

    @classmethod
    def empty(cls, shape: RankerShape, rating: ValuePosterior | None = None) -> ItemTables:
        """Zeros, to be overwritten by stored tables."""
        rows = shape.n_items + 1
        width = max(1, sum(column.width for column in shape.item_columns))
        return cls(
            torch.zeros(rows, shape.dimension),
            torch.zeros(rows, shape.content_dimension),
            torch.zeros(rows, len(STATISTICS)),
            torch.zeros(rows, width, dtype=torch.int64),
            rating,
        )


@dataclass(frozen=True)
class LookedUp:
    """What the item tables say of candidates and history.

    Attributes:
        queries: Keys of the candidates ``(B, C, D + E)``.
        keys: Keys of the past ``(B, L, D + E)``.
        statistics: Of the candidates ``(B, C, S)``.
        past_statistics: Of the past, the leading ``STATISTICS_OF_HISTORY`` columns ``(B, L, 2)``.
        predicted: Predicted values of the candidates ``(B, C)``.
        dimension: D.
    """

    queries: Tensor
    keys: Tensor
    statistics: Tensor
    past_statistics: Tensor
    predicted: Tensor
    dimension: int


def candidate_features(tables: ItemTables, merged: Merged, history: HistoryView, user_features: Tensor) -> Tensor:
    """Features without trained weights, ``(B, C, feature_width)``; computed once for training."""
    looked_up = LookedUp(
        F.embedding(merged.rows, tables.keys),
        F.embedding(history.rows, tables.keys),
        F.embedding(merged.rows, tables.statistics),
        F.embedding(history.rows, tables.statistics)[..., :STATISTICS_OF_HISTORY],
        tables.predicted_values(merged.rows, history, user_features),
        tables.dimension,
    )
    return features_of(looked_up, merged, history)


def features_of(looked_up: LookedUp, merged: Merged, history: HistoryView) -> Tensor:
    """``candidate_features`` of what was looked up.

    In order: scores, presence and rank discounts by source; item statistics; the two popularities against the mean of
    the user's past; highest and mean similarity, mean content match; predicted value; history length, age span and
    mean value.
    """
    queries, keys, dimension = looked_up.queries, looked_up.keys, looked_up.dimension
    present = history.mask.to(queries.dtype).unsqueeze(-1)  # (B, L, 1)
    count = present.sum(1)  # (B, 1)
    share = present / count.clamp(min=1).unsqueeze(1)
    known = count.clamp(max=1).unsqueeze(1)  # (B, 1, 1), 0 for an empty history
    statistics, past = looked_up.statistics, looked_up.past_statistics
    centre = queries * (keys * share).sum(1, keepdim=True)
    user = torch.cat(
        [torch.log1p(count), history.events[..., 0].amax(1, keepdim=True), (history.events[..., 3:] * share).sum(1)],
        -1,
    )  # (B, 3)
    return torch.cat(
        [
            merged.scores,
            merged.present,
            merged.discounts,
            statistics,
            (statistics[..., :STATISTICS_OF_HISTORY] - (past * share).sum(1, keepdim=True)) * known,
            _closest(queries[..., :dimension], keys[..., :dimension], present) * known,
            centre[..., :dimension].sum(-1, keepdim=True),
            centre[..., dimension:].sum(-1, keepdim=True),
            looked_up.predicted.unsqueeze(-1),
            user.unsqueeze(1).expand(-1, queries.shape[1], -1),
        ],
        -1,
    )


def _closest(queries: Tensor, keys: Tensor, present: Tensor) -> Tensor:
    """Highest cosine with any past item ``(B, C, 1)``; padding counts as -2."""
    extended = torch.cat([queries, torch.ones_like(queries[..., :1])], -1)
    similarity = extended @ torch.cat([keys, 2 * present - 2], -1).transpose(1, 2)
    return similarity.amax(-1, keepdim=True)

"""The ranker's predicted values with what is linear folded into the item tables.

The prior of a user is a linear function of the summed directions of the history's items. Projecting every item's
direction once leaves D + 1 numbers of an item in place of its S directions; the result is the same up to rounding.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.models.ranker_attention import HistoryView
from training.ratings.model import RatingFacts, ValuePosterior, solve
from training.ratings.side import FEW_EVENTS

DENSE = 3
"""Leading rows of ``user_dense`` that are no directions: 1, activity and its square."""


@dataclass(frozen=True)
class ValueTables:
    """Columns by item, row I for an unknown one.

    Attributes:
        vectors: ``(I + 1, D + 1)``, the bias last.
        variances: ``(I + 1, D)`` of the vectors.
        directions: ``(I + 1, D + 1)``, projected.
    """

    vectors: Tensor
    variances: Tensor
    directions: Tensor


def value_tables(posterior: ValuePosterior) -> ValueTables:
    """Folds a posterior's tables in float64."""
    project = posterior.user_dense[DENSE:].double()
    return ValueTables(
        torch.cat([posterior.item_features[:, 1:], posterior.item_bias.unsqueeze(1)], 1),
        posterior.item_variance[:, 1:],
        (posterior.item_directions.double() @ project).float(),
    )


class FoldedValues(nn.Module):
    """Posterior means of the values, from looked-up rows of :class:`ValueTables`.

    Args:
        facts: Scalars of the rating model.
        dimension: D.
        codes: Rows of the user attributes' table.
        columns: User attributes.
    """

    user_codes: Tensor
    code_offsets: Tensor
    dense: Tensor
    centre: Tensor
    user_precision: Tensor

    def __init__(self, facts: RatingFacts, dimension: int, codes: int, columns: int) -> None:
        super().__init__()
        self.facts = facts
        self.register_buffer("user_codes", torch.zeros(codes, dimension + 1))
        self.register_buffer("code_offsets", torch.zeros(columns, dtype=torch.int64))
        self.register_buffer("dense", torch.zeros(DENSE, dimension + 1))
        self.register_buffer("centre", torch.zeros(dimension + 1))
        self.register_buffer("user_precision", torch.ones(dimension + 1))

    @classmethod
    def fold(cls, posterior: ValuePosterior) -> FoldedValues:
        """That of a posterior."""
        codes, width = posterior.user_codes.shape
        folded = cls(posterior.facts, width - 1, codes, len(posterior.code_offsets))
        for name in ("user_codes", "code_offsets", "user_precision"):
            getattr(folded, name).copy_(getattr(posterior, name))
        folded.dense.copy_(posterior.user_dense[:DENSE])
        folded.centre.copy_((posterior.spectral_mean.double() @ posterior.user_dense[DENSE:].double()).float())
        return folded

    def forward(
        self, items: Tensor, past: Tensor, past_only: Tensor, history: HistoryView, user_features: Tensor
    ) -> Tensor:
        """Predicted values ``(B, C)``.

        Args:
            items: Vectors and biases of the candidates ``(B, C, D + 1)``.
            past: Those of the history ``(B, L, D + 1)``.
            past_only: Variances and directions of the history ``(B, L, D + D + 1)``.
            history: The past.
            user_features: Codes ``(B, F)``.
        """
        dimension = items.shape[-1] - 1
        values = history.values
        present = history.mask.to(values.dtype)
        valued = present * (values != 0).to(values.dtype)
        summed = torch.stack([present, valued], 1) @ past_only  # (B, 2, D + D + 1)
        prior = self._prior(present.sum(1, keepdim=True), summed[:, 0, dimension:], user_features)
        ones = torch.ones_like(past[..., :1])
        features = torch.cat([ones, past[..., :dimension]], -1) * valued.unsqueeze(2)  # (B, L, D + 1)
        noise = self.facts.noise_precision
        spread = F.pad(summed[:, 1, :dimension], (1, 0))  # the bias is no feature
        precision = noise * (features.transpose(1, 2) @ features)
        precision = precision + torch.diag_embed(noise * spread + self.user_precision)
        residual = values - self.facts.mean - past[..., dimension]
        pull = noise * (residual.unsqueeze(1) @ features).squeeze(1) + self.user_precision * prior
        user = solve(precision, pull)  # (B, D + 1)
        beside = torch.cat([user[:, 1:], torch.ones_like(user[:, :1])], 1)  # vector, then 1 for the item's bias
        return self.facts.mean + user[:, :1] + (items @ beside.unsqueeze(2)).squeeze(2)

    def _prior(self, count: Tensor, directions: Tensor, user_features: Tensor) -> Tensor:
        mean, scale, least, most = self.facts.activity
        activity = torch.clamp((torch.log1p(count) - mean) / scale, least, most)  # (B, 1)
        spectral = directions / torch.sqrt(torch.clamp(count, min=1.0)) - self.centre
        spectral = spectral * (count / (count + FEW_EVENTS))
        known = (user_features != 0).to(spectral.dtype).unsqueeze(2)
        coded = (F.embedding(user_features + self.code_offsets, self.user_codes) * known).sum(1)
        return torch.cat([torch.ones_like(activity), activity, activity**2], 1) @ self.dense + spectral + coded

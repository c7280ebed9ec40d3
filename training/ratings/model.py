"""The rating model as it is served: one graph from a user's history and item rows to ratings and probabilities."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import nn

from training.ratings.side import FEW_EVENTS

SUMMARY = (
    "predicted", "log_variance", "user_bias", "item_bias", "user_activity", "item_activity",
    "user_mean", "user_deviation", "user_liked", "item_mean", "item_deviation", "item_liked",
)  # fmt: skip
"""What the combiner sees of a (user, item) pair, in order."""
ITEM_STATISTICS = 4
"""Activity, mean, deviation, liked share."""
PRIOR_EVENTS = 2.0
"""Events at the average that statistics of few values are shrunk with."""
FARTHEST = 6.0
"""Summary columns are held within so many deviations."""
TINY = 1e-12


@dataclass(frozen=True)
class RatingFacts:
    """Scalars of the model.

    Attributes:
        value_mean: Raw mean; ``raw = value_mean + value_std * standardised``.
        value_std: Raw deviation.
        lowest: Smallest raw value of the fit; ratings are held within.
        highest: Largest one.
        like_at: Raw value from which on an item counts as liked.
        liked_share: Share of liked values in the fit.
        mean: Mean of the fitted standardised values.
        noise_precision: 1 / variance of the noise.
        activity: Mean, scale, least and most of the users' log event counts.
        hidden: Width of the combiner's hidden layer.
    """

    value_mean: float
    value_std: float
    lowest: float
    highest: float
    like_at: float
    liked_share: float
    mean: float
    noise_precision: float
    activity: tuple[float, float, float, float]
    hidden: int

    @property
    def like_value(self) -> float:
        """``like_at`` on the standardised scale."""
        return (self.like_at - self.value_mean) / self.value_std


class Combiner(nn.Module):
    """A linear layer and a small network beside it, from the summary to a correction of the value and a logit.

    Args:
        hidden: Width of the hidden layer.
    """

    centre: torch.Tensor
    scale: torch.Tensor

    def __init__(self, hidden: int) -> None:
        super().__init__()
        width = len(SUMMARY)
        self.direct = nn.Linear(width, 2)
        self.inner = nn.Linear(width, hidden)
        self.outer = nn.Linear(hidden, 2)
        self.register_buffer("centre", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))

    def forward(self, summary: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Corrections and logits ``(...)`` of summaries ``(..., len(SUMMARY))``."""
        scaled = torch.clamp((summary - self.centre) / self.scale, -FARTHEST, FARTHEST)
        out = self.direct(scaled) + self.outer(torch.tanh(self.inner(scaled)))
        return out[..., 0], out[..., 1]


class ValuePosterior(nn.Module):
    """Fold-in of a user into a fitted posterior.

    The user's posterior given the history's values is Gaussian: its precision is ``noise * sum_l E[y_l y_l'] +
    prior precision``, inverted by Gauss-Jordan steps, so the graph needs no solver. An event whose standardised value
    is 0 has no known value: it tells what the user takes up, not how it was liked.

    Args:
        tables: ``item_features`` ``(I + 1, D + 1)`` = [1, vector], ``item_bias`` ``(I + 1,)``, ``item_variance``
            ``(I + 1, D + 1)`` of [bias, vector], ``item_directions`` ``(I + 1, S)`` (last row zero),
            ``item_statistics`` ``(I + 1, 4)``, ``user_codes`` ``(codes, D + 1)``, ``code_offsets`` int64 ``(F,)``,
            ``user_dense`` ``(3 + S, D + 1)``, ``spectral_mean`` ``(S,)``, ``user_precision``
            ``(D + 1,)``. Row I stands for an unknown item.
        facts: Scalars.
    """

    item_features: torch.Tensor
    item_bias: torch.Tensor
    item_variance: torch.Tensor
    item_directions: torch.Tensor
    item_statistics: torch.Tensor
    user_codes: torch.Tensor
    code_offsets: torch.Tensor
    user_dense: torch.Tensor
    spectral_mean: torch.Tensor
    user_precision: torch.Tensor

    TABLES = (
        "item_features", "item_bias", "item_variance", "item_directions", "item_statistics",
        "user_codes", "code_offsets", "user_dense", "spectral_mean", "user_precision",
    )  # fmt: skip

    def __init__(self, tables: dict[str, torch.Tensor], facts: RatingFacts) -> None:
        super().__init__()
        for name in self.TABLES:
            self.register_buffer(name, tables[name].contiguous())
        self.facts = facts
        self.n_items = len(self.item_bias) - 1

    def summary(
        self, rows: torch.Tensor, values: torch.Tensor, user_features: torch.Tensor, item_rows: torch.Tensor
    ) -> torch.Tensor:
        """What is known of each pair, float32 ``(B, Q, len(SUMMARY))``; arguments as of ``RatingModel.forward``."""
        present = (rows != self.n_items).to(values.dtype)  # (B, L)
        valued = present * (values != 0).to(values.dtype)
        activity = self._activity(present)  # (B, 1)
        user, covariance = self._user(rows, values, valued, self._prior(rows, present, activity, user_features))
        features = F.embedding(item_rows, self.item_features)  # (B, Q, D + 1)
        variance = F.embedding(item_rows, self.item_variance)
        bias = F.embedding(item_rows, self.item_bias.unsqueeze(1)).squeeze(2)  # (B, Q)
        predicted = self.facts.mean + bias + (features @ user.unsqueeze(2)).squeeze(2)
        # The user's features are [1, x]; beside them stands what both sides' uncertainties make together.
        squares = torch.cat([torch.ones_like(user[:, :1]), user[:, 1:] ** 2], 1)
        own = torch.diagonal(covariance, dim1=1, dim2=2)
        joint = squares + torch.cat([torch.zeros_like(own[:, :1]), own[:, 1:]], 1)  # (B, D + 1)
        spread = ((features @ covariance) * features).sum(2) + (variance @ joint.unsqueeze(2)).squeeze(2)
        of_user = torch.cat([user[:, :1], activity, *self._user_statistics(values, valued)], 1)  # (B, 5)
        shape = (-1, item_rows.shape[1], -1)
        user_bias, user_rest = of_user[:, :1].unsqueeze(1).expand(shape), of_user[:, 1:].unsqueeze(1).expand(shape)
        of_item = F.embedding(item_rows, self.item_statistics)  # (B, Q, 4)
        log_variance = torch.log(torch.clamp(spread, min=TINY))
        return torch.cat(
            [
                predicted.unsqueeze(2),
                log_variance.unsqueeze(2),
                user_bias,
                bias.unsqueeze(2),
                user_rest[..., :1],
                of_item[..., :1],
                user_rest[..., 1:],
                of_item[..., 1:],
            ],
            2,
        )

    def predicted(
        self, rows: torch.Tensor, values: torch.Tensor, user_features: torch.Tensor, item_rows: torch.Tensor
    ) -> torch.Tensor:
        """Posterior means of the standardised values ``(B, Q)``: the first column of ``summary``.

        Without the variances, which need the whole inverse. Arguments as of ``RatingModel.forward``.
        """
        present = (rows != self.n_items).to(values.dtype)
        valued = present * (values != 0).to(values.dtype)
        prior = self._prior(rows, present, self._activity(present), user_features)
        user = solve(*self._equations(rows, values, valued, prior))  # (B, D + 1)
        features = F.embedding(item_rows, self.item_features)
        bias = F.embedding(item_rows, self.item_bias.unsqueeze(1)).squeeze(2)
        return self.facts.mean + bias + (features @ user.unsqueeze(2)).squeeze(2)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Everything that a file has to hold."""
        return {name: tensor.cpu().contiguous() for name, tensor in self.state_dict().items()}

    def as_facts(self) -> dict[str, Any]:
        """JSON-able scalars; ``from_tensors`` takes them back."""
        return {"model": "rating", "n_items": self.n_items, **asdict(self.facts)}

    @classmethod
    def from_tensors(cls, tensors: dict[str, torch.Tensor], facts: dict[str, Any]) -> Self:
        """The model that ``tensors()`` and ``as_facts()`` were taken from."""
        known = {name: facts[name] for name in RatingFacts.__dataclass_fields__}
        model = cls(tensors, RatingFacts(**known | {"activity": tuple(facts["activity"])}))
        model.load_state_dict(tensors)
        return model.eval()

    def _activity(self, present: torch.Tensor) -> torch.Tensor:
        mean, scale, least, most = self.facts.activity
        return torch.clamp((torch.log1p(present.sum(1, keepdim=True)) - mean) / scale, least, most)

    def _prior(
        self, rows: torch.Tensor, present: torch.Tensor, activity: torch.Tensor, user_features: torch.Tensor
    ) -> torch.Tensor:
        """Prior mean of [bias, vector], ``(B, D + 1)``."""
        spectral = F.embedding(rows, self.item_directions).sum(1)  # (B, S), zero where padded
        count = present.sum(1, keepdim=True)
        spectral = spectral / torch.sqrt(torch.clamp(count, min=1.0)) - self.spectral_mean
        spectral = spectral * (count / (count + FEW_EVENTS))
        dense = torch.cat([torch.ones_like(activity), activity, activity**2, spectral], 1)
        known = (user_features != 0).to(dense.dtype).unsqueeze(2)
        coded = (F.embedding(user_features + self.code_offsets, self.user_codes) * known).sum(1)
        return dense @ self.user_dense + coded

    def _user(
        self, rows: torch.Tensor, values: torch.Tensor, valued: torch.Tensor, prior: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Posterior mean ``(B, D + 1)`` and covariance ``(B, D + 1, D + 1)``."""
        precision, pull = self._equations(rows, values, valued, prior)
        covariance = inverse(precision)
        return (covariance @ pull.unsqueeze(2)).squeeze(2), covariance

    def _equations(
        self, rows: torch.Tensor, values: torch.Tensor, valued: torch.Tensor, prior: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Precision ``(B, D + 1, D + 1)`` and its product with the posterior mean, ``(B, D + 1)``."""
        features = F.embedding(rows, self.item_features) * valued.unsqueeze(2)  # (B, L, D + 1)
        spread = F.embedding(rows, self.item_variance)
        spread = (spread * valued.unsqueeze(2)).sum(1) * self._of_vector()  # the bias is no feature
        noise = self.facts.noise_precision
        precision = noise * (features.transpose(1, 2) @ features)
        precision = precision + torch.diag_embed(noise * spread + self.user_precision)
        residual = values - self.facts.mean - F.embedding(rows, self.item_bias.unsqueeze(1)).squeeze(2)
        return precision, noise * (residual.unsqueeze(1) @ features).squeeze(1) + self.user_precision * prior

    def _of_vector(self) -> torch.Tensor:
        return (torch.arange(len(self.user_precision), device=self.user_precision.device) > 0).to(torch.float32)

    def _user_statistics(
        self, values: torch.Tensor, valued: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Mean, deviation and liked share ``(B, 1)`` each, shrunk."""
        count = valued.sum(1, keepdim=True) + PRIOR_EVENTS
        mean = (values * valued).sum(1, keepdim=True) / count
        square = ((values**2 * valued).sum(1, keepdim=True) + PRIOR_EVENTS) / count
        liked = valued * (values >= self.facts.like_value - 1e-4).to(values.dtype)
        share = (liked.sum(1, keepdim=True) + PRIOR_EVENTS * self.facts.liked_share) / count
        return mean, torch.sqrt(torch.clamp(square - mean**2, min=TINY)), share


class RatingModel(ValuePosterior):
    """The posterior with the combiner on top; arguments as of the base class."""

    def __init__(self, tables: dict[str, torch.Tensor], facts: RatingFacts) -> None:
        super().__init__(tables, facts)
        self.combiner = Combiner(facts.hidden)

    def posterior(self) -> ValuePosterior:
        """Without the combiner."""
        return ValuePosterior({name: getattr(self, name) for name in self.TABLES}, self.facts).eval()

    def forward(
        self,
        history_rows: torch.Tensor,
        history_values: torch.Tensor,
        user_features: torch.Tensor,
        item_rows: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Ratings and probabilities of any items, seen or not.

        Args:
            history_rows: int64 ``(B, L)``, padded with I.
            history_values: float32 ``(B, L)``, standardised; 0 where unknown or padded.
            user_features: int64 ``(B, F)``, attribute codes, 0 is unknown.
            item_rows: int64 ``(B, Q)``; I for an unknown item.

        Returns:
            Ratings float32 ``(B, Q)`` on the scale of the data, and the probability ``(B, Q)`` that the value is
            at or above ``like_at``.
        """
        summary = self.summary(history_rows, history_values, user_features, item_rows)
        correction, logit = self.combiner(summary)
        value = self.facts.value_mean + self.facts.value_std * (summary[..., 0] + correction)
        return torch.clamp(value, self.facts.lowest, self.facts.highest), torch.sigmoid(logit)


def inverse(matrix: torch.Tensor) -> torch.Tensor:
    """Inverses of symmetric positive definite matrices ``(B, n, n)`` by Gauss-Jordan steps, n small.

    Each step is ``A - (column - e)(row + e)' / pivot``. The matrix is first scaled to a diagonal of ones: pivots then
    lie in (0, 1] and nothing large cancels. Plain arithmetic, since ONNX has no inverse. Rows and columns are picked by
    products with unit vectors, which is exact: TensorRT for RTX 1.7 takes minutes over as many slices and half a second
    over the products.
    """
    size = matrix.shape[1]
    scale = torch.rsqrt(torch.clamp(torch.diagonal(matrix, dim1=1, dim2=2), min=TINY))  # (B, n)
    current = matrix * scale.unsqueeze(1) * scale.unsqueeze(2)
    unit = torch.eye(size, dtype=matrix.dtype, device=matrix.device)
    for at in range(size):
        column, row = current @ unit[:, at : at + 1], unit[at : at + 1] @ current
        pivot = torch.clamp(row @ unit[:, at : at + 1], min=TINY)  # (B, 1, 1)
        current = current - (column - unit[:, at : at + 1]) @ ((row + unit[at : at + 1]) / pivot)
    return current * scale.unsqueeze(1) * scale.unsqueeze(2)


def solve(matrix: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """``x`` in ``matrix x = right``, ``(B, n)``, by the steps of :func:`inverse` on the system alone.

    Args:
        matrix: Symmetric positive definite ``(B, n, n)``, n small.
        right: ``(B, n)``.
    """
    size = matrix.shape[1]
    scale = torch.rsqrt(torch.clamp(torch.diagonal(matrix, dim1=1, dim2=2), min=TINY))  # (B, n)
    current = torch.cat([matrix * scale.unsqueeze(1), right.unsqueeze(2)], 2) * scale.unsqueeze(2)
    unit = torch.eye(size + 1, dtype=matrix.dtype, device=matrix.device)
    for at in range(size):
        column, row = current @ unit[:, at : at + 1], unit[at : at + 1, :size] @ current
        pivot = torch.clamp(row @ unit[:, at : at + 1], min=TINY)  # (B, 1, 1)
        current = current - (column - unit[:size, at : at + 1]) @ (row / pivot)
    return (current @ unit[:, size:]).squeeze(2) * scale

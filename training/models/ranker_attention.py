"""Target attention: which past events matter for this candidate (DIN, Zhou et al. 2018, arXiv 1706.06978, eq. 3).

The item vectors are frozen and only their cosine similarities enter, never the vectors: those of two fits are rotated
against each other, their similarities agree.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SMALLEST_TEMPERATURE = 6.0
"""Keeps similarity in charge of the weights: e^6 between an equal and an orthogonal item."""
EVENT_RANGE = 1.5
"""Age and value move a logit by at most this much either way."""
SHORT_DAYS, LONG_DAYS = 1.0, 30.0
MASKED_LOGIT = -1e4


@dataclass(frozen=True)
class HistoryView:
    """A padded history as the ranker sees it.

    Attributes:
        rows: int64 ``(B, L)``.
        mask: bool ``(B, L)``, True at events.
        events: ``(B, L, 4)``: log age, short-term recency, long-term recency, value; 0 where padded.
    """

    rows: Tensor
    mask: Tensor
    events: Tensor

    @property
    def values(self) -> Tensor:
        """Standardised values ``(B, L)``, 0 where unknown or padded."""
        return self.events[..., 3]


POOLED = 5
"""Features that the attention gives per candidate."""


def view_history(rows: Tensor, ages: Tensor, values: Tensor, n_items: int) -> HistoryView:
    """Masks and event features of a padded history; see ``core.tensors`` for the inputs."""
    mask = rows < n_items
    columns = [torch.log1p(ages) / 5, torch.exp(-ages / SHORT_DAYS), torch.exp(-ages / LONG_DAYS), values]
    events = torch.stack(columns, -1)
    return HistoryView(rows, mask, torch.where(mask.unsqueeze(-1), events, torch.zeros_like(events)))


class TargetAttention(nn.Module):
    """Attention of each candidate over the user's past events.

    Everything over candidates x history is one product before the softmax and one after it: temperatures, event terms
    and the mask ride along as columns of its factors.

    Args:
        dimension: D, the leading columns of the item keys, whose product is the similarity by recall; the others give
            the content match.
    """

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.dimension = dimension
        self.temperature = nn.Parameter(torch.tensor(1.0))
        self.content_temperature = nn.Parameter(torch.tensor(0.0))
        self.event_hidden = nn.Linear(4, 8)
        self.event_out = nn.Linear(8, 1)

    def weights(self, queries: Tensor, keys: Tensor, history: HistoryView) -> Tensor:
        """Attention weights ``(B, C, L)``: sum 1 over events; uniform over padding, to be ignored, without any event.

        Args:
            queries: Item keys of the candidates ``(B, C, D + E)``.
            keys: Item keys of the past ``(B, L, D + E)``.
            history: The past.
        """
        event = EVENT_RANGE * torch.tanh(self.event_out(torch.tanh(self.event_hidden(history.events))))  # (B, L, 1)
        event = torch.where(history.mask.unsqueeze(-1), event, torch.full_like(event, MASKED_LOGIT))
        scaled = [
            queries[..., : self.dimension] * (SMALLEST_TEMPERATURE + F.softplus(self.temperature)),
            queries[..., self.dimension :] * F.softplus(self.content_temperature),
            torch.ones_like(queries[..., :1]),
        ]
        return torch.softmax(torch.cat(scaled, -1) @ torch.cat([keys, event], -1).transpose(1, 2), -1)

    def forward(self, queries: Tensor, keys: Tensor, history: HistoryView) -> Tensor:
        """Pooled features ``(B, C, POOLED)``, 0 for an empty history; arguments as in :meth:`weights`.

        In order: attended similarity, content match, short-term recency, long-term recency and value.
        """
        return self.pool(self.weights(queries, keys, history), queries, keys, history)

    def pool(self, weights: Tensor, queries: Tensor, keys: Tensor, history: HistoryView) -> Tensor:
        """:meth:`forward` from weights ``(B, C, L)`` that are known already."""
        pooled = weights @ torch.cat([keys, history.events[..., 1:]], -1)
        matched = pooled[..., : queries.shape[-1]] * queries
        parts = [
            matched[..., : self.dimension].sum(-1, keepdim=True),
            matched[..., self.dimension :].sum(-1, keepdim=True),
            pooled[..., queries.shape[-1] :],
        ]
        known = history.mask.any(1).to(queries.dtype)[:, None, None]
        return torch.cat(parts, -1) * known

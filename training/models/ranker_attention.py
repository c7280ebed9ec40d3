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


@dataclass(frozen=True)
class Similarities:
    """Cosines between candidates and past items, ``(B, C, L)``; 0 where padded."""

    vectors: Tensor
    content: Tensor


POOLED = 5
"""Features that the attention gives per candidate."""


def view_history(rows: Tensor, ages: Tensor, values: Tensor, n_items: int) -> HistoryView:
    """Masks and event features of a padded history; see ``core.tensors`` for the inputs."""
    mask = rows < n_items
    columns = [torch.log1p(ages) / 5, torch.exp(-ages / SHORT_DAYS), torch.exp(-ages / LONG_DAYS), values]
    events = torch.stack(columns, -1)
    return HistoryView(rows, mask, torch.where(mask.unsqueeze(-1), events, torch.zeros_like(events)))


class TargetAttention(nn.Module):
    """Attention of each candidate over the user's past events."""

    def __init__(self) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.tensor(1.0))
        self.content_temperature = nn.Parameter(torch.tensor(0.0))
        self.event_hidden = nn.Linear(4, 8)
        self.event_out = nn.Linear(8, 1)

    def weights(self, similarities: Similarities, history: HistoryView) -> Tensor:
        """Attention weights ``(B, C, L)``: they sum to 1 over events, and are all 0 for an empty history."""
        event = EVENT_RANGE * torch.tanh(self.event_out(torch.tanh(self.event_hidden(history.events))))  # (B, L, 1)
        logits = (
            (SMALLEST_TEMPERATURE + F.softplus(self.temperature)) * similarities.vectors
            + F.softplus(self.content_temperature) * similarities.content
            + event.transpose(1, 2)
        )
        mask = history.mask.unsqueeze(1)
        logits = torch.where(mask, logits, torch.full_like(logits, MASKED_LOGIT))
        weights = torch.softmax(logits, -1)
        return weights * mask.to(weights.dtype)  # only an empty history has weight on padding

    def forward(self, similarities: Similarities, history: HistoryView) -> Tensor:
        """Pooled features ``(B, C, POOLED)``: attended similarity, content match, short and long recency, value."""
        weights = self.weights(similarities, history)
        attended = [(weights * similarities.vectors).sum(-1), (weights * similarities.content).sum(-1)]
        return torch.cat([torch.stack(attended, -1), weights @ history.events[..., 1:]], -1)

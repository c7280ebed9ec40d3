"""Similar items and similar users as served graphs, from the vectors of a recall model."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from core.histories import Histories, pad
from core.similarity import directions, shared_part
from core.tensors import EXPLANATIONS, MASKED
from training.models.recall_base import RecallModel

TINY = 1e-12
USERS_AT_ONCE = 256


class NearestItems(nn.Module):
    """The items whose vectors point the same way as those of the given items, by cosine.

    Several items are one question: the mean of their directions. Each answer names the given items nearest to it.
    Items of which nothing is known are neither answered nor understood: a question of such items alone has no answer.

    Args:
        item_vectors: float32 ``(I + 1, D)``, last row zero.
        returned: R.
    """

    table: torch.Tensor
    unknown: torch.Tensor

    def __init__(self, item_vectors: torch.Tensor, returned: int) -> None:
        super().__init__()
        table = torch.from_numpy(directions(item_vectors.detach().cpu().numpy()))
        self.n_items = len(table) - 1
        self.returned = returned
        self.register_buffer("table", table)
        self.register_buffer("unknown", (table == 0).all(dim=1).float() * MASKED)

    def forward(
        self, history_rows: torch.Tensor, exclude_rows: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """The nearest R items.

        Args:
            history_rows: int64 ``(B, L)``, the given items, padded with I.
            exclude_rows: int64 ``(B, X)``, rows that must not come back, the given ones among them, padded with I.

        Returns:
            Rows ``(B, R)`` and cosines ``(B, R)``, best first; given rows ``(B, R, 3)`` nearest to each, row I being
            none, and their cosines, at least 0; ones ``(B, 1)``: the order is final.
        """
        given = F.embedding(history_rows, self.table)  # (B, L, D), zero where padded
        question = given.sum(dim=1)
        length = question.norm(dim=1, keepdim=True)
        scores = (question / torch.clamp(length, min=TINY)) @ self.table.T + self.unknown  # (B, I + 1)
        scores = torch.where(length > TINY, scores, torch.full_like(scores, MASKED))
        scores = scores.scatter(1, exclude_rows, MASKED)
        rows, best = _top(scores, self.returned, self.n_items)
        cosines = F.embedding(rows, self.table) @ given.transpose(1, 2)  # (B, R, L)
        weights, places = torch.topk(torch.clamp(cosines, min=0.0, max=1.0), EXPLANATIONS, dim=-1)
        past = history_rows.unsqueeze(1).expand(-1, self.returned, -1).gather(2, places)
        reasons = torch.where(weights > 0, past, torch.full_like(past, self.n_items))
        return rows, best, reasons, weights, torch.ones_like(rows[:, :1]).to(torch.int32)


class NearestUsers(nn.Module):
    """The users of the release whose vectors point the same way as that of the given history, by cosine.

    Args:
        model: Computes a user's vector from a history.
        user_vectors: float32 ``(U, D)`` of the release's users, zero where a user has no history.
        returned: R.
    """

    table: torch.Tensor
    shared: torch.Tensor
    unknown: torch.Tensor

    def __init__(self, model: RecallModel, user_vectors: np.ndarray, returned: int) -> None:
        super().__init__()
        self.model = model
        self.returned = returned
        table = torch.from_numpy(directions(user_vectors))
        self.register_buffer("table", table)
        self.register_buffer("shared", torch.from_numpy(shared_part(user_vectors).astype(np.float32)))
        self.register_buffer("unknown", (table == 0).all(dim=1).float() * MASKED)

    def forward(
        self,
        history_rows: torch.Tensor,
        history_ages: torch.Tensor,
        history_values: torch.Tensor,
        history_kinds: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The nearest R users.

        Args:
            history_rows: int64 ``(B, L)``, newest first, padded with I.
            history_ages: float32 ``(B, L)``.
            history_values: float32 ``(B, L)``.
            history_kinds: int64 ``(B, L)``.

        Returns:
            User rows ``(B, R)`` and cosines ``(B, R)``, best first; ``<= MASKED`` marks no user.
        """
        vector = self.model.user_vectors(history_rows, history_ages, history_values, history_kinds) - self.shared
        length = vector.norm(dim=1, keepdim=True)
        scores = (vector / torch.clamp(length, min=TINY)) @ self.table.T + self.unknown
        filled = (history_rows != self.model.n_items).to(scores.dtype).amax(dim=1, keepdim=True)
        return _top(torch.where(filled > 0, scores, torch.full_like(scores, MASKED)), self.returned, 0)


@torch.no_grad()
def vectors_of_users(model: RecallModel, histories: Histories) -> np.ndarray:
    """Vectors of all users, float32 ``(U, D)``, zero without a history; in batches of similar length."""
    order = np.argsort(histories.lengths, kind="stable")
    vectors = np.zeros((len(histories), model.dimension), dtype=np.float32)
    for start in range(0, len(order), USERS_AT_ONCE):
        users = order[start : start + USERS_AT_ONCE]
        padded = pad(histories.select(users), model.n_items)
        tensors = map(torch.from_numpy, (padded.rows, padded.ages, padded.values, padded.kinds))
        vectors[users] = model.user_vectors(*tensors).numpy()
    vectors[histories.lengths == 0] = 0
    return vectors


def _top(scores: torch.Tensor, returned: int, nothing: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows and scores of the best ``returned``, ``nothing`` and ``MASKED`` where there are fewer."""
    best, rows = torch.topk(scores, min(returned, scores.shape[1]), dim=1)
    rows = torch.where(best > MASKED / 2, rows, torch.full_like(rows, nothing))
    best = torch.clamp(best, min=MASKED)
    missing = returned - rows.shape[1]
    if missing == 0:
        return rows, best
    return F.pad(rows, (0, missing), value=nothing), F.pad(best, (0, missing), value=MASKED)

"""Out-of-fold tables: what members that never saw a window say about the window's users."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from core.dataset import Dataset, histories_of
from core.histories import pad
from core.metrics import Truth, hits, ndcg, truth_of
from core.tensors import MASKED
from training.models.mix_model import known_items, standardised_scores, user_facts
from training.models.recall_base import RecallModel
from training.ranking.windows import Window
from training.requests import user_codes

CANDIDATES = 300
"""Items per user in a table: those that some member rates highest."""
CELLS_PER_BATCH = 1 << 23
"""Users are scored in batches of about this many (user, item) cells."""
CUTOFF = 10


@dataclass(frozen=True)
class WindowTable:
    """A window's users, their best items by any member, and what came true.

    Attributes:
        standard: float32 ``(U, C, M)``, each member's standardised score.
        rows: int64 ``(U, C)``, -1 where a user has fewer candidates.
        labels: float32 ``(U, C)``, 1 where the item came true.
        facts: float32 ``(U, USER_FACTS)``.
        truth: All items that came true, those that no member proposed included.
        users: int64 ``(U,)``, user rows.
    """

    standard: torch.Tensor
    rows: torch.Tensor
    labels: torch.Tensor
    facts: torch.Tensor
    truth: Truth
    users: np.ndarray

    def __len__(self) -> int:
        return len(self.users)

    def grouped(self, copies: Sequence[int]) -> WindowTable:
        """Neighbouring members averaged in groups of the given sizes."""
        parts = [part.mean(dim=2) for part in self.standard.split(list(copies), dim=2)]
        return replace(self, standard=torch.stack(parts, dim=2))

    def ndcg(self, weights: torch.Tensor) -> np.ndarray:
        """NDCG@10 of each user ``(U,)`` under ``weights``, ``(M,)`` or ``(U, M)``."""
        scores = torch.einsum("ucm,um->uc", self.standard, weights.expand(len(self), -1))
        scores = torch.where(self.rows >= 0, scores, torch.full_like(scores, MASKED))
        _, places = torch.sort(scores, dim=1, descending=True, stable=True)
        lists = self.rows.gather(1, places[:, :CUTOFF]).numpy()
        return ndcg(hits(lists, self.truth), self.truth.sizes, CUTOFF)


@torch.no_grad()
def window_table(
    dataset: Dataset,
    window: Window,
    models: Sequence[RecallModel],
    *,
    max_users: int,
    rng: np.random.Generator,
    advance: Callable[[int], None] = lambda users: None,
) -> WindowTable:
    """Scores the users of a window by models fitted on its past.

    Args:
        dataset: Gives the catalogue.
        window: Past and future.
        models: M models fitted on ``window.past``.
        max_users: Most users; a random choice where there are more.
        rng: Draws that choice.
        advance: Told how many users are done.
    """
    users = np.unique(window.future.user_rows).astype(np.int64)
    if len(users) > max_users:
        users = np.sort(rng.choice(users, max_users, replace=False))
    place = np.full(dataset.n_users, -1)
    place[users] = np.arange(len(users))
    kept = place[window.future.user_rows] >= 0
    truth = truth_of(place[window.future.user_rows[kept]], window.future.item_rows[kept], len(users))
    histories = histories_of(window.past, dataset.n_users)
    count = min(CANDIDATES, dataset.n_items)
    known = torch.stack([known_items(model.empty_bias) for model in models]).amax(dim=0) > 0
    parts: list[tuple[torch.Tensor, ...]] = []
    for some in np.array_split(users, max(1, len(users) * dataset.n_items // CELLS_PER_BATCH)):
        padded = pad(histories.select(some), dataset.n_items)
        rows, ages = torch.from_numpy(padded.rows), torch.from_numpy(padded.ages)
        request = (rows, ages, torch.from_numpy(padded.values), torch.from_numpy(padded.kinds))
        codes = user_codes(dataset, some)
        standard = torch.stack([standardised_scores(model, *request, codes) for model in models], dim=2)
        best = torch.where(known, standard.amax(dim=2), MASKED).scatter(1, torch.from_numpy(padded.exclude), MASKED)
        top, chosen = torch.topk(best, count, dim=1)
        found = standard.gather(1, chosen.unsqueeze(2).expand(-1, -1, len(models)))
        parts.append((found, torch.where(top > MASKED / 2, chosen, -1), user_facts(rows, ages, dataset.n_items)))
        advance(len(some))
    standard, rows, facts = (torch.cat(column) for column in zip(*parts, strict=True))
    labels = torch.from_numpy(hits(rows.numpy(), truth)).float()
    return WindowTable(standard, rows, labels, facts, truth, users)

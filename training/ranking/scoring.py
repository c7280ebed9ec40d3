"""How well scores order the examples: NDCG per user for choosing, loss and AUC for watching."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor

from core.metrics import hits, ndcg
from core.tensors import MASKED
from training.models.ranker import Ranker
from training.ranking.examples import Batch, Examples

CUTOFF = 10
Scorer = Callable[[Batch], Tensor]
"""Batch to scores ``(B, C)``."""


def by_blend(weights: Iterable[float]) -> Scorer:
    """Scores by fixed weights on the two standardised recall scores."""
    fixed = torch.tensor(list(weights), dtype=torch.float32)
    return lambda batch: (batch.source_scores * fixed).sum(-1)


def by_source(source: int) -> Scorer:
    """Only what one recall model listed, in its order: the model alone, without the other's candidates."""
    return lambda batch: torch.where(batch.present[..., source] > 0, batch.source_scores[..., source], MASKED)


def by_ranker(ranker: Ranker) -> Scorer:
    """The ranker's own scores."""
    return lambda batch: (batch.source_scores * ranker.blend).sum(-1) + ranker.strength * correction(ranker, batch)


def correction(ranker: Ranker, batch: Batch) -> Tensor:
    """What the network adds to the blend, ``(B, C)``."""
    return ranker.correction(
        batch.tables, batch.rows, batch.features, batch.similarities(), batch.history, batch.user_features
    )


def listwise_loss(scores: Tensor, batch: Batch) -> Tensor:
    """Softmax cross-entropy over each user's candidates, spread evenly over the hits; users weigh the same.

    Users without a hit among their candidates teach nothing here and are left out.
    """
    masked = torch.where(batch.valid, scores, torch.full_like(scores, MASKED))
    positives = batch.labels.sum(1)
    per_user = -(torch.log_softmax(masked, 1) * batch.labels).sum(1) / positives.clamp(min=1)
    return per_user.sum() / (positives > 0).sum().clamp(min=1)


@torch.no_grad()
def ndcg_of_users(scorer: Scorer, examples: Examples, k: int = CUTOFF) -> np.ndarray:
    """NDCG@k of each user ``(users,)``; hits that recall missed stay in the ideal."""
    lists = []
    for batch in examples.batches:
        scores = torch.where(batch.valid, scorer(batch), MASKED)
        best, places = torch.sort(scores, dim=1, descending=True, stable=True)
        rows = torch.where(best[:, :k] > MASKED / 2, batch.rows.gather(1, places[:, :k]), -1)
        lists.append(torch.nn.functional.pad(rows, (0, k - rows.shape[1]), value=-1).numpy())
    return ndcg(hits(np.concatenate(lists), examples.truth), examples.truth.sizes, k)


@torch.no_grad()
def mean_loss(scorer: Scorer, examples: Examples) -> float:
    """Mean listwise loss over the users with a hit among their candidates."""
    total, users = 0.0, 0
    for batch in examples.batches:
        with_hits = int((batch.labels.sum(1) > 0).sum())
        total += float(listwise_loss(scorer(batch), batch)) * with_hits
        users += with_hits
    return total / max(users, 1)


@torch.no_grad()
def mean_auc(scorer: Scorer, examples: Examples) -> float:
    """Mean over users of the share of (hit, miss) candidate pairs in the right order, ties counting half (GAUC).

    NaN where no user has both.
    """
    values = []
    for batch in examples.batches:
        scores = scorer(batch).numpy()
        for user_scores, valid, labels in zip(scores, batch.valid.numpy(), batch.labels.numpy(), strict=True):
            hit, miss = user_scores[valid & (labels > 0)], np.sort(user_scores[valid & (labels == 0)])
            if len(hit) and len(miss):
                below = np.searchsorted(miss, hit, "left") + np.searchsorted(miss, hit, "right")
                values.append(below.mean() / (2 * len(miss)))
    return float(np.mean(values)) if values else float("nan")

"""How well scores order the examples: NDCG per user for choosing, loss and AUC for watching."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from core.metrics import hits, ndcg
from core.tensors import MASKED
from training.models.ranker import Ranker
from training.ranking.examples import Batch, Examples

CUTOFF = 10
Scorer = Callable[[Batch], Tensor]
"""Batch to scores ``(B, C)``."""
Scores = Sequence[Tensor]
"""Scores ``(B, C)`` of each batch of the examples, masked candidates at MASKED."""


def by_blend(weights: Sequence[float]) -> Scorer:
    """Scores by fixed weights on the standardised recall scores."""
    fixed = torch.tensor(weights, dtype=torch.float32)
    return lambda batch: (batch.source_scores * fixed).sum(-1)


def by_base(ranker: Ranker) -> Scorer:
    """Scores before the correction: blend and predicted value."""
    return lambda batch: ranker.base(batch.source_scores, batch.features)


def by_source(source: int) -> Scorer:
    """Only what one recall model listed, in its order: the model alone, without the others' candidates."""
    return lambda batch: torch.where(batch.present[..., source] > 0, batch.source_scores[..., source], MASKED)


def by_correction(ranker: Ranker) -> Scorer:
    """What all members together add to the blend, at strength 1."""
    return lambda batch: ranker.correction(batch.candidates)


def by_member(ranker: Ranker, member: int = 0) -> Scorer:
    """What one member of the correction alone adds to the blend."""
    chosen = ranker.correction.members[member]
    return lambda batch: chosen(batch.candidates)


@torch.no_grad()
def scores_of(scorer: Scorer, examples: Examples) -> list[Tensor]:
    """Scores of all examples, masked."""
    return [torch.where(batch.valid, scorer(batch), MASKED) for batch in examples.batches]


def listwise_loss(scores: Tensor, batch: Batch) -> Tensor:
    """Softmax cross-entropy over each user's candidates, spread evenly over the hits; users weigh the same.

    Users without a hit among their candidates teach nothing here and are left out.
    """
    masked = torch.where(batch.valid, scores, torch.full_like(scores, MASKED))
    positives = batch.labels.sum(1)
    per_user = -(torch.log_softmax(masked, 1) * batch.labels).sum(1) / positives.clamp(min=1)
    return per_user.sum() / (positives > 0).sum().clamp(min=1)


def ndcg_of_users(scores: Scores, examples: Examples, k: int = CUTOFF) -> np.ndarray:
    """NDCG@k of each user ``(users,)``; hits that recall missed stay in the ideal."""
    lists = []
    for batch_scores, batch in zip(scores, examples.batches, strict=True):
        best, places = torch.sort(batch_scores, dim=1, descending=True, stable=True)
        rows = torch.where(best[:, :k] > MASKED / 2, batch.rows.gather(1, places[:, :k]), -1)
        lists.append(F.pad(rows, (0, k - rows.shape[1]), value=-1).numpy())
    return ndcg(hits(np.concatenate(lists), examples.truth), examples.truth.sizes, k)


def mean_loss(scores: Scores, examples: Examples) -> float:
    """Mean listwise loss over the users with a hit among their candidates."""
    total, users = 0.0, 0
    for batch_scores, batch in zip(scores, examples.batches, strict=True):
        with_hits = int((batch.labels.sum(1) > 0).sum())
        total += float(listwise_loss(batch_scores, batch)) * with_hits
        users += with_hits
    return total / max(users, 1)


def mean_auc(scores: Scores, examples: Examples) -> float:
    """Mean over users of their AUC (GAUC). NaN where no user has both hits and misses."""
    values = auc_of_users(scores, examples)
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")


def auc_of_users(scores: Scores, examples: Examples) -> np.ndarray:
    """Per user the share of (hit, miss) candidate pairs in the right order, ties counting half, ``(users,)``.

    NaN for a user without both.
    """
    values = []
    for batch_scores, batch in zip(scores, examples.batches, strict=True):
        for of_user, valid, labels in zip(batch_scores.numpy(), batch.valid.numpy(), batch.labels.numpy(), strict=True):
            hit, miss = of_user[valid & (labels > 0)], np.sort(of_user[valid & (labels == 0)])
            below = np.searchsorted(miss, hit, "left") + np.searchsorted(miss, hit, "right")
            values.append(below.mean() / (2 * len(miss)) if len(hit) and len(miss) else np.nan)
    return np.array(values)

"""Judges candidates on held-out users: each recall source alone, and recall → rank together, always against fp32."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from core.bootstrap import Difference, paired_bootstrap
from core.dataset import Dataset, histories_of
from core.histories import PaddedHistories, pad
from core.metrics import Truth, hits, ndcg, recall, truth_of
from core.tensors import MASKED
from training.requests import user_codes

CELLS_PER_BATCH = 4_000_000
NDCG_AT, RECALL_AT = 10, 100


@dataclass(frozen=True)
class Batch:
    """Users of similar history, as graphs take them.

    Attributes:
        part: Places of the users.
        padded: Their histories.
        codes: Attribute codes int64 ``(B, F)``.
    """

    part: slice
    padded: PaddedHistories
    codes: torch.Tensor

    def recall_inputs(self) -> tuple[torch.Tensor, ...]:
        """What a recall step takes."""
        of = self.padded
        return (*map(torch.from_numpy, (of.rows, of.ages, of.values, of.kinds, of.exclude)), self.codes)

    def rank_inputs(self) -> tuple[torch.Tensor, ...]:
        """What the rank step takes before the lists."""
        of = self.padded
        return (*map(torch.from_numpy, (of.rows, of.ages, of.values)), self.codes)


@dataclass(frozen=True)
class Asked:
    """Users who are asked about.

    Attributes:
        users: User rows int64 ``(U,)``, shortest history first.
        truth: What they did next, without what they had done before.
        lengths: Events of each in the past ``(U,)``.
        batches: All users.
        n_items: I.
    """

    users: np.ndarray
    truth: Truth
    lengths: np.ndarray
    batches: tuple[Batch, ...]
    n_items: int


@dataclass(frozen=True)
class Proposed:
    """What a recall step gives all asked users: rows int64 and scores float32, ``(U, K)``."""

    rows: np.ndarray
    scores: np.ndarray

    def lists(self) -> np.ndarray:
        """Rows, -1 where there is no candidate."""
        return np.where(self.scores > MASKED / 2, self.rows, -1)


@dataclass(frozen=True)
class Quality:
    """Per asked user.

    Attributes:
        ndcg: NDCG@10 ``(U,)``.
        recall: Recall@100 ``(U,)``; lists may be shorter.
    """

    ndcg: np.ndarray
    recall: np.ndarray


@dataclass(frozen=True)
class Verdict:
    """A candidate against fp32 on the same users.

    Attributes:
        ndcg: Its mean NDCG@10.
        relative: Change of the mean NDCG@10 relative to fp32's mean, with a paired bootstrap interval over users.
        recall: Relative change of recall@100, likewise.
        overlap: Mean share of fp32's first items that it lists as well.
    """

    ndcg: float
    relative: Difference
    recall: Difference
    overlap: float


def ask(dataset: Dataset, fit: tuple[str, ...], split: str, max_users: int, rng: np.random.Generator) -> Asked:
    """The warm users of a split that the models have not learned from, at most ``max_users`` of them."""
    past, later = dataset.events.of_splits(fit), dataset.events.of_splits((split,))
    width = np.int64(dataset.n_items)
    new = ~np.isin(later.user_rows * width + later.item_rows, past.user_rows * width + past.item_rows)
    warm = np.isin(later.user_rows, past.user_rows)
    kept = later.where(new & warm)
    users = np.unique(kept.user_rows)
    if len(users) > max_users:
        users = np.sort(rng.choice(users, max_users, replace=False))
    histories = histories_of(past, dataset.n_users)
    users = users[np.argsort(histories.lengths[users], kind="stable")].astype(np.int64)
    place = np.full(dataset.n_users, -1)
    place[users] = np.arange(len(users))
    owned = place[kept.user_rows] >= 0
    pairs = np.unique(np.stack([place[kept.user_rows[owned]], kept.item_rows[owned]], 1), axis=0)
    truth = truth_of(pairs[:, 0], pairs[:, 1], len(users))
    lengths = histories.lengths[users]
    batches = tuple(
        Batch(part, pad(histories.select(users[part]), dataset.n_items), user_codes(dataset, users[part]))
        for part in _parts(lengths, dataset.n_items)
    )
    return Asked(users, truth, lengths, batches, dataset.n_items)


@torch.no_grad()
def propose(module: nn.Module, asked: Asked) -> Proposed:
    """A recall module's candidates for all asked users."""
    found = [module(*batch.recall_inputs()) for batch in asked.batches]
    rows, scores = (torch.cat(part).numpy() for part in zip(*found, strict=True))
    return Proposed(rows, scores)


@torch.no_grad()
def rank(module: nn.Module, proposed: Mapping[str, Proposed], asked: Asked) -> np.ndarray:
    """The ranker's lists ``(U, R)`` over what the sources propose, -1 where short."""
    lists = []
    for batch in asked.batches:
        candidates = [
            torch.from_numpy(part[batch.part]) for one in proposed.values() for part in (one.rows, one.scores)
        ]
        rows, scores, *_ = module(*batch.rank_inputs(), *candidates)
        lists.append(np.where(scores.numpy() > MASKED / 2, rows.numpy(), -1))
    return np.concatenate(lists)


def quality(lists: np.ndarray, asked: Asked) -> Quality:
    """Metrics of lists ``(U, k)``."""
    hit, sizes = hits(lists, asked.truth), asked.truth.sizes
    return Quality(ndcg(hit, sizes, NDCG_AT), recall(hit, sizes, RECALL_AT))


def verdict(lists: np.ndarray, original: np.ndarray, asked: Asked, overlap_at: int, seed: int) -> Verdict:
    """Compares lists ``(U, k)`` with those of fp32."""
    return verdict_within(np.ones(len(asked.users), dtype=bool), lists, original, asked, overlap_at, seed)


def slices(asked: Asked, popularity: np.ndarray) -> dict[str, np.ndarray]:
    """Groups of the asked users who may fare otherwise than the rest, as masks ``(U,)``.

    Args:
        asked: The users.
        popularity: Events per item ``(I,)``, of what the models learned from.
    """
    short, long = np.quantile(asked.lengths, [1 / 3, 2 / 3])
    owners = np.repeat(np.arange(len(asked.users)), asked.truth.sizes)
    known = np.log1p(popularity[asked.truth.item_rows])
    mean = np.bincount(owners, known, len(asked.users)) / np.maximum(asked.truth.sizes, 1)
    return {
        "shortest third of histories": asked.lengths <= short,
        "longest third of histories": asked.lengths >= long,
        "rarer half of next items": mean < np.median(mean),
        "more popular half of next items": mean >= np.median(mean),
    }


def verdict_within(
    part: np.ndarray, lists: np.ndarray, original: np.ndarray, asked: Asked, overlap_at: int, seed: int
) -> Verdict:
    """As :func:`verdict`, of the users of a mask ``(U,)`` alone."""
    ours, theirs = quality(lists, asked), quality(original, asked)
    return Verdict(
        float(ours.ndcg[part].mean()),
        _relative(ours.ndcg[part], theirs.ndcg[part], seed),
        _relative(ours.recall[part], theirs.recall[part], seed),
        float(overlap(lists[part], original[part], overlap_at).mean()),
    )


def overlap(lists: np.ndarray, original: np.ndarray, k: int) -> np.ndarray:
    """Share of the first ``k`` items of each original list that the other's first ``k`` hold as well, ``(U,)``."""
    first, others = original[:, :k], lists[:, :k]
    known = first >= 0
    shared = (first[:, :, None] == others[:, None, :]).any(2) & known
    found: np.ndarray = shared.sum(1) / np.maximum(known.sum(1), 1)
    return np.where(known.any(1), found, 1.0)


def _relative(ours: np.ndarray, theirs: np.ndarray, seed: int) -> Difference:
    base = max(float(theirs.mean()), 1e-12)
    gap = paired_bootstrap(ours, theirs, np.random.default_rng(seed))
    return Difference(gap.mean / base, gap.low / base, gap.high / base, gap.standard_error / base)


def _parts(lengths: np.ndarray, n_items: int) -> Iterator[slice]:
    start = 0
    while start < len(lengths):
        stop = start + 1
        while stop < len(lengths) and (stop + 1 - start) * max(n_items, 64 * int(lengths[stop])) <= CELLS_PER_BATCH:
            stop += 1
        yield slice(start, stop)
        start = stop

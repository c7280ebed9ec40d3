"""Ranking examples: users of a label window, the candidates recall really proposes them, and what came true."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from core.dataset import Dataset, Events, histories_of
from core.histories import Histories, PaddedHistories, pad
from core.metrics import Truth, hits, truth_of
from core.progress import SILENT, Progress
from training.distributed.group import ALONE, Group
from training.models.ranker import ItemTables
from training.models.ranker_attention import HistoryView, view_history
from training.models.ranker_features import candidate_features
from training.models.ranker_members import Candidates
from training.models.ranker_merge import merge
from training.models.recall_base import RecallModel
from training.ranking.sources import RecallSet
from training.ranking.windows import Window
from training.requests import user_codes

CELLS_PER_BATCH = 1 << 22
"""Users are batched so that candidates x history stays under this many cells."""


@dataclass(frozen=True)
class Batch:
    """Users of one padded length with everything that no trained weight touches.

    Attributes:
        tables: Item tables of the window's fit.
        history: The users' pasts.
        user_features: Codes ``(B, F)``.
        rows: Merged candidates ``(B, C)``.
        valid: bool ``(B, C)``.
        source_scores: ``(B, C, N)`` standardised scores by source.
        present: ``(B, C, N)`` 1 where the source listed the item.
        features: ``(B, C, F)``, see ``candidate_features``.
        labels: ``(B, C)`` 1 where the candidate came true.
    """

    tables: ItemTables
    history: HistoryView
    user_features: Tensor
    rows: Tensor
    valid: Tensor
    source_scores: Tensor
    present: Tensor
    features: Tensor
    labels: Tensor

    @property
    def candidates(self) -> Candidates:
        """As the ranker's members see them."""
        return Candidates(self.tables, self.rows, self.features, self.history, self.user_features)

    def select(self, index: Tensor) -> Batch:
        """Some users of this batch, in the given order."""
        history = HistoryView(self.history.rows[index], self.history.mask[index], self.history.events[index])
        return Batch(
            self.tables,
            history,
            self.user_features[index],
            self.rows[index],
            self.valid[index],
            self.source_scores[index],
            self.present[index],
            self.features[index],
            self.labels[index],
        )


@dataclass(frozen=True)
class Examples:
    """All users of one window.

    Attributes:
        batches: Users grouped by padded history length.
        truth: Relevant items of the users in batch order, those that recall missed included.
        users: User rows in batch order, int64 ``(users,)``.
    """

    batches: tuple[Batch, ...]
    truth: Truth
    users: np.ndarray

    def __len__(self) -> int:
        return len(self.truth.sizes)

    def where(self, mask: np.ndarray) -> Examples:
        """The users that ``mask`` (bool ``(users,)``) selects, order kept."""
        batches, start = [], 0
        for batch in self.batches:
            chosen = np.flatnonzero(mask[start : start + len(batch.rows)])
            start += len(batch.rows)
            if len(chosen):
                batches.append(batch.select(torch.from_numpy(chosen)))
        kept = np.repeat(mask, self.truth.sizes)
        starts = np.concatenate([[0], np.cumsum(self.truth.sizes[mask])])
        return Examples(tuple(batches), Truth(starts, self.truth.item_rows[kept]), self.users[mask])


def build_examples(
    dataset: Dataset,
    window: Window,
    recall: RecallSet,
    tables: ItemTables,
    relevant: np.ndarray,
    *,
    max_users: int,
    rng: np.random.Generator,
    progress: Progress = SILENT,
    group: Group = ALONE,
) -> Examples:
    """Runs recall on the pasts of the window's users and labels its candidates.

    Args:
        dataset: Gives user attributes and sizes.
        window: Past and future.
        recall: Fitted on ``window.past``.
        tables: Item tables of the same fit.
        relevant: bool over ``window.future``: which of its events are hits.
        max_users: Most users; a random choice where there are more.
        rng: Draws that choice.
        progress: Where the bar goes.
        group: Workers, who run recall for some users each and get all examples.
    """
    future = window.future.where(relevant)
    users = np.unique(future.user_rows)
    if len(users) > max_users:
        users = np.sort(rng.choice(users, max_users, replace=False))
    histories = histories_of(window.past, dataset.n_users)
    users = users[np.argsort(histories.lengths[users], kind="stable")]
    truth = _truth(future, users, dataset.n_users)
    chunks = list(_chunks(histories.lengths[users], recall.candidates * len(recall.names)))
    with progress.bar(f"candidates, {window.name} window", len(users)) as bar:

        def make(number: int) -> dict[str, Any]:
            part = chunks[number]
            batch = _batch(dataset, histories, recall, tables, users[part], _part(truth, part))
            bar.advance(part.stop - part.start)
            return {name: value for name, value in vars(batch).items() if name != "tables"}  # which all have

        batches = [Batch(tables, **fields) for fields in group.deal(len(chunks), make)]
    return Examples(tuple(batches), truth, users)


@torch.no_grad()
def _batch(
    dataset: Dataset, histories: Histories, recall: RecallSet, tables: ItemTables, users: np.ndarray, truth: Truth
) -> Batch:
    padded = pad(histories.select(users), dataset.n_items)
    codes = user_codes(dataset, users)
    rows, scores = zip(*(propose(model, padded, codes) for model in recall.models.values()), strict=True)
    merged = merge(rows, scores)
    history = view_history(
        torch.from_numpy(padded.rows), torch.from_numpy(padded.ages), torch.from_numpy(padded.values), dataset.n_items
    )
    labels = hits(merged.rows.numpy(), truth) & merged.valid.numpy()
    return Batch(
        tables,
        history,
        codes,
        merged.rows,
        merged.valid,
        merged.scores,
        merged.present,
        candidate_features(tables, merged, history, codes),
        torch.from_numpy(labels).float(),
    )


def propose(recall: RecallModel, padded: PaddedHistories, user_features: Tensor) -> tuple[Tensor, Tensor]:
    """One recall model's candidates for padded histories: rows and scores ``(B, K)``."""
    inputs = (padded.rows, padded.ages, padded.values, padded.kinds, padded.exclude)
    proposed: tuple[Tensor, Tensor] = recall(*(torch.from_numpy(part) for part in inputs), user_features)
    return proposed


def _truth(future: Events, users: np.ndarray, n_users: int) -> Truth:
    place = np.full(n_users, -1)
    place[users] = np.arange(len(users))
    kept = place[future.user_rows] >= 0
    return truth_of(place[future.user_rows[kept]], future.item_rows[kept], len(users))


def _part(truth: Truth, part: slice) -> Truth:
    starts = truth.starts[part.start : part.stop + 1]
    return Truth(starts - starts[0], truth.item_rows[starts[0] : starts[-1]])


def _chunks(lengths: np.ndarray, candidates: int) -> Iterator[slice]:
    """Neighbouring users, shortest history first, whose padded lists fit into one batch."""
    start = 0
    while start < len(lengths):
        stop = start + 1
        while stop < len(lengths) and (stop + 1 - start) * candidates * max(16, lengths[stop]) <= CELLS_PER_BATCH:
            stop += 1
        yield slice(start, stop)
        start = stop

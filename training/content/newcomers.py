"""Users without a history but with attributes: a small tower from attributes to the recall model's space."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy import sparse
from torch import Tensor

from core.bootstrap import paired_bootstrap
from core.columns import counts_of
from core.dataset import Dataset, Events
from core.features import UNKNOWN
from core.metrics import hits, ndcg, truth_of
from core.progress import SILENT, Progress
from core.sections import ContentSettings
from training.models.newcomers import Newcomers
from training.models.recall_base import RecallModel

STEPS, CHECK_EVERY = 60, 10
RATE = 0.05
SHRINKAGE = 1e-3
"""Weight of the squared norm: an attribute value must earn its distance from plain popularity."""
HELD_OUT = 0.2
FEWEST_USERS = 50


@dataclass(frozen=True)
class NewcomerFit:
    """A recall model with a tower for users without a history.

    Attributes:
        model: The given model where attributes told nothing beyond popularity.
        metrics: Plain JSON values: NDCG@10 of held-out users by popularity and by attributes.
    """

    model: RecallModel
    metrics: dict[str, Any]


def fit_newcomers(
    model: RecallModel,
    dataset: Dataset,
    events: Events,
    settings: ContentSettings,
    *,
    seed: int,
    progress: Progress = SILENT,
) -> NewcomerFit:
    """Learns a vector for each attribute value, such that popularity plus the user's vector ranks first lists.

    The scores of an empty history are the log of recent popularity, which are the logits of a softmax already: the
    tower learns what to add. It is used only where users held out whole get better lists by more than two standard
    errors than by popularity, and than by the attributes of other users.

    Args:
        model: Fitted on ``events``.
        dataset: Attributes of the users.
        events: What to learn from.
        settings: ``enabled``, ``max_users`` and ``batch_users``.
        seed: Decides users and order.
        progress: Gets one line.
    """
    features = dataset.user_features
    counts = counts_of(events.user_rows, dataset.n_users)
    users = np.flatnonzero((counts > 0) & (features.codes > UNKNOWN).any(1))
    if not (settings.enabled and model.takes_content) or len(users) < FEWEST_USERS:
        return NewcomerFit(model, {})
    rng = np.random.default_rng(seed)
    users = rng.permutation(users)[: settings.max_users]
    lists = sparse.csr_matrix(
        (np.ones(len(events), np.float32), (events.user_rows, events.item_rows)),
        shape=(dataset.n_users, dataset.n_items),
    )
    held_out, others = np.split(users, [int(HELD_OUT * len(users))])
    task = _Task(model, torch.from_numpy(features.codes.astype(np.int64)), lists)
    fresh = lambda: Newcomers.unknown(features.columns, model.dimension)  # noqa: E731
    trials = task.train(fresh(), others, STEPS, settings.batch_users, seed)
    values = [task.ndcg(tower, held_out) for tower in trials]
    best = int(np.argmax([value.mean() for value in values]))
    # Any attribute can carry what all users share, so it must also beat itself dealt out anew among the users.
    dealt = features.codes.copy()
    dealt[np.sort(users)] = features.codes[users]
    control = _Task(model, torch.from_numpy(dealt.astype(np.int64)), lists)
    controls = [
        control.ndcg(tower, held_out) for tower in control.train(fresh(), others, STEPS, settings.batch_users, seed)
    ]
    rivals = (values[0], max(controls, key=lambda found: float(found.mean())))
    gaps = [paired_bootstrap(values[best], rival, rng) for rival in rivals]
    helps = all(gap.mean > 2 * gap.standard_error for gap in gaps)
    metrics = {
        "users": len(users),
        "ndcg@10_popularity": round(float(values[0].mean()), 5),
        "ndcg@10_shuffled": round(float(rivals[1].mean()), 5),
        "ndcg@10_attributes": round(float(values[best].mean()), 5),
        "steps": best * CHECK_EVERY,
        "helps": helps,
    }
    if not helps:
        return NewcomerFit(model, metrics)
    *_, tower = task.train(fresh(), users, best * CHECK_EVERY, settings.batch_users, seed)
    fitted = copy.deepcopy(model)
    fitted.newcomers = tower
    progress.say(
        f"newcomers: NDCG@10 of users held out {metrics['ndcg@10_attributes']:.4f} by attributes, "
        f"{metrics['ndcg@10_popularity']:.4f} by popularity"
    )
    return NewcomerFit(fitted, metrics)


class _Task:
    def __init__(self, model: RecallModel, codes: Tensor, lists: sparse.csr_matrix) -> None:
        vectors = model.item_vectors[:-1]
        self.scale = float(vectors[vectors.any(1)].square().mean().sqrt().clamp(min=1e-9))
        self.vectors = vectors
        self.popularity = model.empty_bias[:-1]
        self.codes, self.lists = codes, lists

    def train(self, tower: Newcomers, users: np.ndarray, steps: int, batch: int, seed: int) -> list[Newcomers]:
        """The tower before training and after every ``CHECK_EVERY`` steps."""
        generator = torch.Generator().manual_seed(seed)
        table = (tower.vectors * self.scale).requires_grad_(True)
        optimizer = torch.optim.Adam([table], lr=RATE)
        checks = [copy.deepcopy(tower)]
        for step in range(1, steps + 1):
            some = users[torch.randperm(len(users), generator=generator)[:batch].numpy()]
            target = torch.from_numpy(self.lists[some].toarray())
            target = target / target.sum(1, keepdim=True)
            logits = tower.sum_of(table, self.codes[some]) @ (self.vectors / self.scale).T + self.popularity
            loss = -(target * F.log_softmax(logits, 1)).sum(1).mean() + SHRINKAGE * table.square().sum()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                table[UNKNOWN] = 0
                tower.vectors.copy_(table / self.scale)
            if step % CHECK_EVERY == 0:
                checks.append(copy.deepcopy(tower))
        return checks

    def ndcg(self, tower: Newcomers, users: np.ndarray) -> np.ndarray:
        """NDCG@10 of users whose events are all unknown, one value each."""
        with torch.no_grad():
            scores = tower(self.codes[users]) @ self.vectors.T + self.popularity
        pairs = self.lists[users].tocoo()
        truth = truth_of(pairs.row, pairs.col, len(users))
        lists = scores.topk(min(10, scores.shape[1]), dim=1).indices.numpy()
        return np.asarray(ndcg(hits(lists, truth), truth.sizes, 10))

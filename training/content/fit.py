"""Training of the content tower, its length chosen on items held out whole."""

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
from core.metrics import hits, ndcg, truth_of
from core.progress import SILENT, Progress
from core.sections import ContentSettings
from core.tensors import MASKED
from training.content.inputs import ContentInputs
from training.content.lessons import Lessons
from training.content.ridge import regress, start_from_ridge
from training.content.tower import ContentTower, Predicted
from training.loop import check_finite

ITEM_TABLE = "item_vectors"
"""The recall model's table that scores are made with."""
CHECK_EVERY = 10
HALF_WEIGHT = 10.0
"""Events at which an item teaches half as much as one of many events."""
AVERAGE_DECAY = 0.9
"""Weights are averaged over about this many steps: 1 / (1 - decay)."""
MOST_ITEMS = 4_096
"""Items per step; a larger catalogue is sampled."""
ADVICE = "lower content.learning_rate"


@dataclass(frozen=True)
class FittedTower:
    """A trained tower and what it was chosen by.

    Attributes:
        tower: Trained on all items with enough events.
        metrics: NDCG@10 among the held-out items, of the tower and of a random order, and the steps chosen.
        helps: The tower orders held-out items better than chance by more than two standard errors.
        level: To be added to the predicted bias, of which training sees differences alone: with it, the items that
            taught have the same mean score as in the recall model.
    """

    tower: ContentTower
    metrics: dict[str, Any]
    helps: bool
    level: float


def fit_tower(
    lessons: Lessons,
    inputs: ContentInputs,
    settings: ContentSettings,
    *,
    seed: int,
    start: ContentTower | None = None,
    progress: Progress = SILENT,
) -> FittedTower:
    """Trains once without the held-out items to choose the number of steps, then on all items.

    The loss is the error of the vectors in the users' metric, an item counting by its events, plus
    ``content.ranking_weight`` times the softmax cross-entropy of what users did later. The first keeps the vectors
    where the model's own ones are, the second makes them rank.

    Args:
        lessons: Targets.
        inputs: Content of the catalogue.
        settings: Section [content].
        seed: Decides start values, order and dropout.
        start: A tower for the same inputs whose values replace the random ones, see ``transfer``.
        progress: One step per check.

    Raises:
        TrainingError: The loss is not finite.
    """
    taught = np.flatnonzero((lessons.counts >= settings.least_events) & inputs.known.numpy())
    others = np.setdiff1d(taught, lessons.held_out)
    held_out = np.intersect1d(lessons.held_out, taught)
    scores: list[np.ndarray] = []
    with progress.bar("content", 1 + settings.steps // CHECK_EVERY) as bar:
        for tower in _train(lessons, inputs, others, settings, settings.steps, seed, start):
            scores.append(cold_ndcg(tower, lessons, inputs, held_out))
            bar.advance(note=f"NDCG@10 of unknown items {scores[-1].mean() if len(scores[-1]) else 0:.4f}")
    rng = np.random.default_rng(seed)
    means = [float(values.mean()) if len(values) else 0.0 for values in scores]
    best = int(np.argmax(means))
    chance = _chance(lessons, held_out, rng)
    helps = len(chance) > 1
    metrics: dict[str, Any] = {"items": len(taught), "held_out_items": len(held_out), "users": len(chance)}
    if helps:
        gap = paired_bootstrap(scores[best], chance, rng)
        helps = gap.mean > 2 * gap.standard_error
        metrics |= {"ndcg@10_held_out": round(means[best], 5), "ndcg@10_random": round(float(chance.mean()), 5)}
    steps = best * CHECK_EVERY
    *_, tower = _train(lessons, inputs, taught, settings, steps, seed, start)
    level = _level(tower, lessons, inputs, torch.from_numpy(taught))
    return FittedTower(tower, {**metrics, "steps": steps, "helps": helps}, helps, level)


def _level(tower: ContentTower, lessons: Lessons, inputs: ContentInputs, items: Tensor) -> float:
    with torch.no_grad():
        found, user = tower(inputs, items), lessons.users.mean(0)
        own = lessons.tables[ITEM_TABLE][items] @ user + lessons.bias[items]
        return float((own - found.tables[ITEM_TABLE] @ user - found.bias).mean())


def cold_ndcg(tower: ContentTower, lessons: Lessons, inputs: ContentInputs, items: np.ndarray) -> np.ndarray:
    """NDCG@10 among ``items`` alone, for each user who met one of them."""
    with torch.no_grad():
        found = tower(inputs, torch.from_numpy(items))
        scores = (lessons.users @ found.tables[ITEM_TABLE].T + found.bias).numpy()
    return _ndcg(scores, lessons, items)


def _chance(lessons: Lessons, items: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return _ndcg(rng.random((len(lessons.users), len(items))), lessons, items)


def _ndcg(scores: np.ndarray, lessons: Lessons, items: np.ndarray) -> np.ndarray:
    pairs = lessons.later[:, items].tocoo()
    truth = truth_of(pairs.row, pairs.col, len(scores))
    some = truth.sizes > 0
    lists = np.argsort(-scores, axis=1, kind="stable")[:, :10]
    return np.asarray(ndcg(hits(lists, truth), truth.sizes, 10)[some])


def _train(
    lessons: Lessons,
    inputs: ContentInputs,
    items: np.ndarray,
    settings: ContentSettings,
    steps: int,
    seed: int,
    start: ContentTower | None,
) -> list[ContentTower]:
    """The averaged tower at the start and after every ``CHECK_EVERY`` steps."""
    generator = torch.Generator().manual_seed(seed)
    tower = ContentTower(
        inputs,
        {name: t.shape[1] for name, t in lessons.tables.items()},
        settings.dimension,
        settings.dropout,
        generator,
    )
    if start is not None:
        tower.load_state_dict(start.state_dict())
    teacher = _Teacher(lessons, items)
    scale_heads(tower, lessons, teacher)
    targets = teacher.targets(tower.scales)
    weights = teacher.weights[teacher.items]
    if start is None:
        start_from_ridge(tower, inputs, items, targets.numpy(), weights.numpy())
    else:
        solve_head(tower, inputs, teacher.items, targets, weights)
    average = copy.deepcopy(tower)
    optimizer = torch.optim.AdamW(tower.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    checks = [copy.deepcopy(average)]
    for step in range(1, steps + 1):
        rows = teacher.sample(generator)
        found = tower(inputs, rows, generator)
        loss = teacher.vector_loss(found, rows) + settings.ranking_weight * teacher.ranking_loss(
            found, rows, torch.exp(tower.log_temperature), settings.batch_users, generator
        )
        loss = loss + settings.shrinkage * tower.size()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        check_finite(loss.item(), "content", step, ADVICE)
        decay = min(AVERAGE_DECAY, 1 - 1 / (step + 1))
        with torch.no_grad():
            for mean, value in zip(average.parameters(), tower.parameters(), strict=True):
                mean.lerp_(value, 1 - decay)
        if step % CHECK_EVERY == 0:
            checks.append(copy.deepcopy(average))
    return checks


class _Teacher:
    """Losses over the items that teach."""

    def __init__(self, lessons: Lessons, items: np.ndarray) -> None:
        self.lessons = lessons
        self.items = torch.from_numpy(items)
        counts = torch.from_numpy(lessons.counts).float()
        self.weights = counts / (counts + HALF_WEIGHT)
        users = lessons.users
        # An error of an item's vector matters as far as users look into its direction.
        self.metric = {name: torch.eye(table.shape[1]) for name, table in lessons.tables.items()}
        self.metric[ITEM_TABLE] = users.T @ users / len(users)
        self.bases = {
            name: (self.weights * _quadratic(table, self.metric[name]))[self.items].sum()
            for name, table in lessons.tables.items()
        }

    def targets(self, scales: Tensor) -> Tensor:
        """What the items' tables and bias would be in the heads' scale, ``(n, q)``; the bias starts level."""
        tables = [t[self.items] / scale for t, scale in zip(self.lessons.tables.values(), scales, strict=True)]
        return torch.cat([*tables, torch.zeros(len(self.items), 1)], 1)

    def sample(self, generator: torch.Generator) -> Tensor:
        if len(self.items) <= MOST_ITEMS:
            return self.items
        return self.items[torch.randperm(len(self.items), generator=generator)[:MOST_ITEMS]]

    def vector_loss(self, found: Predicted, rows: Tensor) -> Tensor:
        """Weighted squared error of each table over that of predicting nothing, summed over tables."""
        share = len(rows) / len(self.items)
        total = torch.zeros(())
        for name, table in self.lessons.tables.items():
            errors = _quadratic(found.tables[name] - table[rows], self.metric[name])
            total = total + (self.weights[rows] * errors).sum() / (self.bases[name] * share).clamp(min=1e-12)
        return total

    def ranking_loss(
        self, found: Predicted, rows: Tensor, temperature: Tensor, batch_users: int, generator: torch.Generator
    ) -> Tensor:
        """Cross-entropy of what some users did in the other half, each user counting alike."""
        lessons, places = self.lessons, rows.numpy()
        some = torch.randperm(len(lessons.users), generator=generator)[:batch_users]
        users = some.numpy()
        logits = (lessons.users[some] @ found.tables[ITEM_TABLE].T + found.bias) * temperature
        kept = torch.from_numpy(lessons.kept[users][:, places].toarray()) > 0
        later = torch.from_numpy(lessons.later[users][:, places].toarray())
        share = later / later.sum(1, keepdim=True).clamp(min=1)
        return -(share * F.log_softmax(logits.masked_fill(kept, MASKED), dim=1)).sum(1).mean()


def scale_heads(tower: ContentTower, lessons: Lessons, teacher: _Teacher) -> None:
    """Gives the heads the tables' scale, and the logits a spread of about 1 before training."""
    with torch.no_grad():
        scales = [table[teacher.items].square().mean().sqrt() for table in lessons.tables.values()]
        tower.scales.copy_(torch.stack(scales).clamp(min=1e-6))
        spread = (lessons.users[:512] @ lessons.tables[ITEM_TABLE][teacher.items].T).std()
        tower.log_temperature.fill_(-float(torch.log(spread.clamp(min=1e-6))))


def solve_head(tower: ContentTower, inputs: ContentInputs, items: Tensor, targets: Tensor, weights: Tensor) -> None:
    """Solves the head by ridge regression: the vectors of two fits are rotated against each other, content is not."""
    with torch.no_grad():
        content = tower.content(inputs, items).numpy().astype(np.float64)
        mean = (weights[:, None] * targets).sum(0) / weights.sum()
        spread = max(float(np.sqrt(np.square(content).sum(1).mean())), 1e-9)
        solved = regress(sparse.csr_matrix(content / spread), (targets - mean).numpy(), weights.numpy()) / spread
        tower.head.copy_(torch.from_numpy(solved.astype(np.float32)))
        tower.start.copy_(mean)


def _quadratic(vectors: Tensor, metric: Tensor) -> Tensor:
    return ((vectors @ metric) * vectors).sum(1)

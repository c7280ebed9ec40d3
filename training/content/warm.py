"""Items without events enter a fitted recall model: vectors and bias from their content, the served graph as before."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from core.columns import counts_of
from core.dataset import Dataset, Events, histories_of
from core.progress import SILENT, Progress
from core.settings import Settings
from core.tensors import MASKED
from training.content.exposure import exposure_offset
from training.content.fit import ITEM_TABLE, FittedTower, fit_tower
from training.content.inputs import ContentInputs, content_inputs
from training.content.lessons import make_lessons, user_vectors
from training.content.tower import Predicted
from training.content.transfer import Start, started_tower
from training.models.recall_base import RecallModel

CALIBRATION_USERS = 1_000
FEWEST_TEACHERS = 20
"""Items with events below which there is nothing to learn a map from."""
MOST_EVENTS = 20
"""Items with more events keep their own vectors untouched."""
TIE = 1e-5
"""Items of the same content are told apart by their row, by this share of the scores' spread."""


@dataclass(frozen=True)
class Warmed:
    """A recall model with its cold items warmed.

    Attributes:
        model: The model; the given one where nothing was to do or content told nothing.
        metrics: Plain JSON values; empty where no tower was trained.
        fitted: The tower, None where none was trained.
        inputs: What the tower reads.
    """

    model: RecallModel
    metrics: dict[str, Any]
    fitted: FittedTower | None = None
    inputs: ContentInputs | None = None


def warm_cold_items(
    model: RecallModel,
    dataset: Dataset,
    events: Events,
    settings: Settings,
    *,
    seed: int,
    start: Start | None = None,
    progress: Progress = SILENT,
) -> Warmed:
    """Gives items without events, or with few, the vectors that their content suggests.

    The vectors of an item with ``n`` events become ``(n own + support predicted) / (n + support)``; that of an item
    without events is the prediction. Cold items get the predicted bias, moved until they take
    ``content.exposure`` times their share of the catalogue of users' first places. The list of an empty history stays
    as it is: it shows what is popular.

    Args:
        model: Fitted on ``events``; any model whose scores are dot products.
        dataset: Content of the items.
        events: What the model was fitted on.
        settings: Section [content].
        seed: Decides the tower.
        start: A tower that another catalogue taught.
        progress: Where the bar and one line go.
    """
    chosen = settings.content
    if not (chosen.enabled and model.takes_content):
        return Warmed(model, {})
    counts = counts_of(events.item_rows, dataset.n_items)
    inputs = content_inputs(dataset, settings, start.encoder if start else None)
    known = inputs.known.numpy()
    cold = np.flatnonzero((counts == 0) & known)
    few = np.flatnonzero((counts > 0) & (counts < MOST_EVENTS) & known) if chosen.support > 0 else np.zeros(0, np.int64)
    teachers = np.count_nonzero((counts >= chosen.least_events) & known)
    if len(cold) + len(few) == 0 or teachers < FEWEST_TEACHERS:
        return Warmed(model, {})
    rng = np.random.default_rng(seed)
    lessons = make_lessons(
        model,
        dataset,
        events,
        least_events=chosen.least_events,
        held_out_share=chosen.held_out,
        max_users=chosen.max_users,
        rng=rng,
    )
    begun = started_tower(start, inputs, lessons, chosen) if start else None
    fitted = fit_tower(lessons, inputs, chosen, seed=seed, start=begun, progress=progress)
    metrics = {**fitted.metrics, "cold_items": len(cold), "few_events_items": len(few)}
    if not fitted.helps:
        progress.say("content: tells nothing about items that were held out; items without events stay last")
        return Warmed(model, metrics, fitted, inputs)
    with torch.no_grad():
        predicted = fitted.tower(inputs, torch.arange(dataset.n_items))
        warmed = _with_vectors(model, predicted, counts, cold, few, chosen.support)
        share = min(1.0, chosen.exposure * len(cold) / dataset.n_items)
        offset = _set_bias(warmed, predicted, fitted.level, dataset, events, counts, cold, share, rng)
    progress.say(
        f"content: {len(cold):,} items without events, NDCG@10 of held-out items "
        f"{metrics['ndcg@10_held_out']:.4f} (random {metrics['ndcg@10_random']:.4f})"
    )
    return Warmed(warmed, {**metrics, "bias_offset": round(offset, 5)}, fitted, inputs)


def _with_vectors(
    model: RecallModel, predicted: Predicted, counts: np.ndarray, cold: np.ndarray, few: np.ndarray, support: float
) -> RecallModel:
    warmed = copy.deepcopy(model)
    rows = torch.from_numpy(np.concatenate([cold, few]))
    events = torch.from_numpy(counts[rows.numpy()]).float()
    own = (events / (events + support).clamp(min=1e-9))[:, None]
    for name, table in warmed.item_tables().items():
        table[rows] = own * table[rows] + (1 - own) * predicted.tables[name][rows]
    return warmed


def _set_bias(
    warmed: RecallModel,
    predicted: Predicted,
    level: float,
    dataset: Dataset,
    events: Events,
    counts: np.ndarray,
    cold: np.ndarray,
    share: float,
    rng: np.random.Generator,
) -> float:
    """Fills the cold items' bias in; gives back the offset."""
    histories = histories_of(events, dataset.n_users)
    users = np.flatnonzero(histories.lengths > 0)
    if len(users) > CALIBRATION_USERS:
        users = np.sort(rng.choice(users, CALIBRATION_USERS, replace=False))
    seen = histories.select(users)
    vectors = user_vectors(warmed, seen)
    bias = predicted.bias[cold].numpy() + level
    warm = (vectors @ warmed.item_vectors[:-1].T + warmed.item_bias[:-1]).numpy()
    spread = float(warm[:, counts > 0].std())
    bias = bias - TIE * spread * _repeats(predicted.tables[ITEM_TABLE][cold].numpy())
    warm[np.repeat(np.arange(len(users)), seen.lengths), seen.item_rows] = MASKED
    warm[:, counts == 0] = MASKED
    offset = exposure_offset(warm, (vectors @ warmed.item_vectors[cold].T).numpy() + bias, share)
    warmed.item_bias[cold] = torch.from_numpy((bias + offset).astype(np.float32))
    return offset


def _repeats(vectors: np.ndarray) -> np.ndarray:
    """How many earlier rows are equal, int ``(n,)``."""
    _, group = np.unique(vectors, axis=0, return_inverse=True)
    group = group.reshape(-1)
    order = np.argsort(group, kind="stable")
    first = np.searchsorted(group[order], group[order])
    result = np.empty(len(group), dtype=np.int64)
    result[order] = np.arange(len(group)) - first
    return result

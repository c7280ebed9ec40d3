"""Training of the rating model: cross-fitted summaries teach the combiner, then all events make the tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from core.dataset import Dataset, Events, histories_of
from core.progress import SILENT, Progress
from core.rating_metrics import rating_metrics
from core.sections import RatingSettings
from training.loop import check_not_empty
from training.ratings.build import build_model
from training.ratings.combine import best_cut, fit_combiner
from training.ratings.model import SUMMARY, RatingModel
from training.ratings.predict import summarise_pairs
from training.ratings.scale import Scale, scale_of

NEWCOMERS = 0.15
"""Share of users whose history is thinned while the combiner learns."""
EMPTY_NEWCOMERS = 0.5
"""As many again, as a share of these, have none at all."""


@dataclass(frozen=True)
class RatingFit:
    """A trained rating model and what is known of it.

    Attributes:
        model: The served form.
        cut: Probability from which on to say "liked": best F1 on the cross-fitted pairs.
        metrics: Of the cross-fitted pairs.
    """

    model: RatingModel
    cut: float
    metrics: dict[str, Any]


def fit_rating(
    dataset: Dataset, events: Events, settings: RatingSettings, *, seed: int, progress: Progress = SILENT
) -> RatingFit:
    """Trains on ``events``; a pair's own event never takes part in what the combiner learns from.

    Args:
        dataset: Catalogue and attributes.
        events: What to learn from, each (user, item) pair once.
        settings: The section ``rating``.
        seed: Decides folds and starts, and with them everything.
        progress: One step per fit of the posterior.

    Raises:
        TrainingError: No events, no values, or a fit that is not finite.
    """
    check_not_empty(events, "rating")
    scale = scale_of(dataset, events, settings.like_at)
    rng = np.random.default_rng([seed, 0])
    with progress.bar("rating", settings.folds + 1) as bar:
        fold = rng.integers(settings.folds, size=len(events))
        summaries = np.zeros((len(events), len(SUMMARY)), dtype=np.float32)
        for number in range(settings.folds):
            held = fold == number
            summaries[held] = _cross_fitted(dataset, events, held, scale, settings, np.random.default_rng([seed, 1]))
            bar.advance(1)
        model = build_model(dataset, events, scale, settings, np.random.default_rng([seed, 1]))
        bar.advance(1)
    known = np.isfinite(events.raw_values)
    taught = torch.from_numpy(summaries[known])
    values, liked = events.values[known], events.raw_values[known] >= scale.like_at
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    fit_combiner(
        model.combiner,
        taught,
        torch.from_numpy(values),
        torch.from_numpy(liked.astype(np.float32)),
        settings,
        generator,
    )
    with torch.no_grad():
        correction, logit = model.combiner(taught)
    predicted = scale.value_mean + scale.value_std * (taught[:, 0] + correction).numpy()
    probabilities = torch.sigmoid(logit).numpy()
    cut = best_cut(probabilities, liked)
    metrics = rating_metrics(
        events.raw_values[known],
        np.clip(predicted, scale.lowest, scale.highest),
        probabilities,
        liked,
        events.user_rows[known],
        cut,
    )
    return RatingFit(model, cut, metrics)


def _cross_fitted(
    dataset: Dataset,
    events: Events,
    held: np.ndarray,
    scale: Scale,
    settings: RatingSettings,
    rng: np.random.Generator,
) -> np.ndarray:
    """Summaries of the held events by a model of all others, whose histories lack them too.

    Some users come with little or none of their history, as new users do: the combiner has to know them too.
    """
    others = events.where(~held)
    model = build_model(dataset, others, scale, settings, rng)
    histories = histories_of(others.where(_shown(others.user_rows, dataset.n_users, rng)), dataset.n_users)
    return summarise_pairs(model, dataset, histories, events.user_rows[held], events.item_rows[held])


def _shown(user_rows: np.ndarray, n_users: int, rng: np.random.Generator) -> np.ndarray:
    """Which events stand in the histories, bool ``(events,)``: all of most users, few or none of newcomers."""
    kept = np.where(rng.random(n_users) < NEWCOMERS, rng.random(n_users) ** 2, 1.0)
    kept[rng.random(n_users) < NEWCOMERS * EMPTY_NEWCOMERS] = 0.0
    shown: np.ndarray = rng.random(len(user_rows)) < kept[user_rows]
    return shown

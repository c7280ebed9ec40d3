"""What each feature contributes to the ranker: permutation importance (Breiman 2001) on a window it has not seen.

A trial is taught on the earlier label window, exactly as the shipped ranker's is when its epochs are chosen. Then one
feature at a time is shuffled, over items or over users, everything computed from it is computed again, and the loss in
NDCG@10 and AUC on the later window's users is what the feature had contributed. Shuffling keeps a feature's values
and breaks what they say; features that say the same stand in for each other and each seem to contribute little.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch

from core.bootstrap import standard_error
from core.dataset import Dataset, Events
from core.errors import TrainingError
from core.features import FeatureTable
from core.progress import SILENT, Progress
from core.settings import Settings
from training.models.ranker import ItemTables, Ranker
from training.models.ranker_features import PREDICTED_VALUE, candidate_features
from training.models.ranker_members import NETWORK
from training.models.ranker_merge import Merged
from training.models.ranker_shape import STATISTICS
from training.ranking.choosing import choose_blend, choose_network, choose_value_weight
from training.ranking.examples import Batch, Examples
from training.ranking.fit import FitRecall, Look, fit_recall_set, look_at, new_ranker, shape_of
from training.ranking.scoring import auc_of_users, by_base, by_member, ndcg_of_users, scores_of
from training.ranking.tables import item_tables
from training.ranking.training import train_network
from training.ranking.windows import label_windows
from training.ratings.model import ValuePosterior

PREDICTED = "predicted value"
"""Name of the rating model's prediction among the features."""
TRIFLE = 1e-4
"""A loss below this is none, however sure it is."""
Kind = Literal["item", "user", "statistic", "prediction"]


@dataclass(frozen=True)
class Drop:
    """What shuffling a feature costs: mean over users and repeats, and its standard error over users."""

    mean: float
    standard_error: float

    @classmethod
    def of(cls, differences: np.ndarray) -> Drop:
        """From before minus after per user; users without a figure do not count."""
        known = differences[np.isfinite(differences)]
        if len(known) == 0:
            return cls(0.0, 0.0)
        return cls(float(known.mean()), float(standard_error(known)) if len(known) > 1 else 0.0)

    @property
    def is_clear(self) -> bool:
        """More than one standard error above nothing, and more than a trifle."""
        return self.mean > max(self.standard_error, TRIFLE)


@dataclass(frozen=True)
class Contribution:
    """One feature.

    Attributes:
        kind: Whose attribute, an item statistic made from the events, or a prediction of the rating model.
        name: The feature.
        ndcg: Loss in NDCG@10 without it.
        auc: Loss in AUC among the candidates without it.
    """

    kind: Kind
    name: str
    ndcg: Drop
    auc: Drop

    @property
    def is_clear(self) -> bool:
        """In NDCG@10 or in AUC."""
        return self.ndcg.is_clear or self.auc.is_clear


@dataclass(frozen=True)
class Importance:
    """All features of a dataset.

    Attributes:
        users: Users of the later window.
        ndcg: NDCG@10 of the trial with everything in place.
        auc: AUC likewise.
        strength: Multiple of the network's output in the trial.
        contributions: By feature, item attributes first.
        examples: The later window.
    """

    users: int
    ndcg: float
    auc: float
    strength: float
    contributions: tuple[Contribution, ...]
    examples: Examples


def feature_importance(
    dataset: Dataset,
    settings: Settings,
    *,
    seed: int,
    repeats: int = 5,
    progress: Progress = SILENT,
    fit_recall: FitRecall = fit_recall_set,
) -> Importance:
    """Trains the trial and shuffles each feature ``repeats`` times.

    Args:
        dataset: The data; splits outside ``settings.train.fit`` are not looked at.
        settings: Recall, ranker and features sections.
        seed: Of the recall fits, the trial and the shuffles.
        repeats: Shuffles per feature.
        progress: One step per feature.
        fit_recall: Fits recall on a window's past.

    Raises:
        TrainingError: Too few users have a past and a later event.
    """
    rng = np.random.default_rng(seed)
    events = dataset.events.of_splits(settings.train.fit)
    windows = label_windows(events, count=2, has_times=dataset.has_times, share=settings.ranker.window_share, rng=rng)
    seen = [look_at(dataset, window, settings, seed, rng, progress, fit_recall) for window in windows]
    earlier, later = (look.examples for look in seen)
    if not (len(earlier) and len(later)):
        raise TrainingError(
            "too few users to tell what features contribute",
            expected="users with a past and later events in both label windows",
            found=f"{len(earlier)} and {len(later)} users",
            next_step="use more events, or raise ranker.window_share",
        )
    trial, strength = _trial(dataset, seen[0], later, settings, seed)
    scorer = _Scorer(trial, strength)
    ndcg, auc = scorer(later)
    found: list[Contribution] = []
    features = list(_features(dataset, seen[1].tables))
    with progress.bar("features", len(features)) as bar:
        for kind, name, at in features:
            drops = []
            for _ in range(repeats):
                shuffled = _shuffled(seen[1], dataset, settings, kind, at, rng)
                after = scorer(shuffled)
                drops.append((ndcg - after[0], auc - after[1]))
            means = (Drop.of(np.mean([drop[which] for drop in drops], 0)) for which in (0, 1))
            found.append(Contribution(kind, name, *means))
            bar.advance(1, name)
    return Importance(len(later), float(ndcg.mean()), float(np.nanmean(auc)), strength, tuple(found), later)


class _Scorer:
    """NDCG@10 and AUC of each user by one trial."""

    def __init__(self, trial: Ranker, strength: float) -> None:
        self._base, self._network, self._strength = by_base(trial), by_member(trial), strength

    def __call__(self, examples: Examples) -> tuple[np.ndarray, np.ndarray]:
        scores = scores_of(lambda batch: self._base(batch) + self._strength * self._network(batch), examples)
        return ndcg_of_users(scores, examples), auc_of_users(scores, examples)


def _trial(dataset: Dataset, earlier: Look, later: Examples, settings: Settings, seed: int) -> tuple[Ranker, float]:
    """A ranker with the network alone, taught on the earlier window, and the multiple of the network that helps."""
    settings = settings.model_copy(update={"ranker": settings.ranker.model_copy(update={"members": (NETWORK,)})})
    ranker = new_ranker(shape_of(dataset, settings, earlier.tables, earlier.recall), earlier.tables, seed)
    ranker.blend.copy_(torch.tensor(choose_blend((earlier.examples,))))
    if earlier.tables.rating is not None:
        ranker.value_weight.fill_(choose_value_weight(ranker, (earlier.examples,)))
    generator = torch.Generator().manual_seed(seed)
    choice = choose_network(ranker, (earlier.examples,), later, settings.ranker, generator=generator)
    epochs = choice.epochs or settings.ranker.epochs
    train_network(ranker, (earlier.examples,), settings.ranker, epochs=epochs, generator=generator)
    return ranker.eval(), choice.strength or 1.0


def _features(dataset: Dataset, tables: ItemTables) -> Iterator[tuple[Kind, str, int]]:
    for at, column in enumerate(dataset.item_features.columns):
        yield "item", column.name, at
    for at, column in enumerate(dataset.user_features.columns):
        yield "user", column.name, at
    for at, name in enumerate(STATISTICS):
        yield "statistic", name, at
    if tables.rating is not None:
        yield "prediction", PREDICTED, PREDICTED_VALUE


def slots_of(table: FeatureTable, at: int) -> slice:
    """Where a column's codes stand."""
    start = sum(column.width for column in table.columns[:at])
    return slice(start, start + table.columns[at].width)


def _shuffled(
    look: Look,
    dataset: Dataset,
    settings: Settings,
    kind: Kind,
    at: int,
    rng: np.random.Generator,
) -> Examples:
    """The window's examples as they would be with one feature dealt out anew."""
    examples, past, vectors = look.examples, look.window.past, look.recall.item_vectors
    if kind == "user":
        slots, order = slots_of(dataset.user_features, at), rng.permutation(len(examples))
        codes = torch.cat([batch.user_features for batch in examples.batches])
        codes[:, slots] = codes[torch.from_numpy(order)][:, slots]
        parts = codes.split([len(batch.rows) for batch in examples.batches])
        batches = [replace(batch, user_features=part) for batch, part in zip(examples.batches, parts, strict=True)]
        return replace(examples, batches=tuple(batches))
    if kind == "prediction":  # dealt out among each user's candidates
        batches = []
        for batch in examples.batches:
            features = batch.features.clone()
            draw = torch.from_numpy(np.argsort(rng.random(batch.rows.shape), axis=1))
            features[..., at] = features[..., at].gather(1, draw)
            batches.append(replace(batch, features=features))
        return replace(examples, batches=tuple(batches))
    order = rng.permutation(dataset.n_items)
    if kind == "item":
        codes_of_items = dataset.item_features.codes.copy()
        slots = slots_of(dataset.item_features, at)
        codes_of_items[:, slots] = codes_of_items[order][:, slots]
        other = replace(dataset, item_features=FeatureTable(dataset.item_features.columns, codes_of_items))
        tables = _tables(other, past, vectors, settings, look.tables.rating)
    else:
        tables = _tables(dataset, past, vectors, settings, look.tables.rating)
        tables.statistics[:-1, at] = tables.statistics[torch.from_numpy(order), at]
    return replace(examples, batches=tuple(_with_tables(batch, tables) for batch in examples.batches))


def _tables(
    dataset: Dataset, past: Events, vectors: torch.Tensor, settings: Settings, rating: ValuePosterior | None
) -> ItemTables:
    chosen = settings.ranker.content_dimension, settings.features.statistics
    return item_tables(dataset, past, vectors, *chosen, rating)


@torch.no_grad()
def _with_tables(batch: Batch, tables: ItemTables) -> Batch:
    sources = batch.source_scores.shape[-1]
    discounts = batch.features[..., 2 * sources : 3 * sources]  # see candidate_features
    merged = Merged(batch.rows, batch.valid, batch.source_scores, batch.present, discounts)
    return replace(
        batch, tables=tables, features=candidate_features(tables, merged, batch.history, batch.user_features)
    )

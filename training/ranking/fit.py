"""Fits the ranker: examples from label windows, the blend, the network, and what is shipped.

Blend and weight of the predicted value are chosen on all windows. The earlier ones teach the network, the last one
decides (passes, whether it is used); several members are weighed out of fold over the users of all windows. Then all
are trained once more on all windows. Nothing after the fitted splits is
ever looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from core.dataset import Dataset, Events
from core.progress import SILENT, Progress
from core.settings import Settings
from training.distributed.group import ALONE, Group
from training.distributed.sharing import UNSHARED, Sharing
from training.models.ranker import ItemTables, Ranker, RankerShape
from training.models.ranker_members import NETWORK, TREES
from training.ranking.choosing import Choice, choose_blend, choose_network, choose_value_weight
from training.ranking.combining import choose_combination, train_members
from training.ranking.examples import Examples, build_examples
from training.ranking.scoring import by_base, by_blend, by_source, mean_auc, ndcg_of_users, scores_of
from training.ranking.sources import RecallSet, fit_recall_set
from training.ranking.tables import item_tables
from training.ranking.training import train_network
from training.ranking.windows import Window, is_liked, label_windows
from training.ratings.build import build_model
from training.ratings.scale import scale_of

__all__ = ["RankerFit", "RecallSet", "fit_ranker", "fit_recall_set"]

FitRecall = Callable[[Dataset, Events, Settings, int, Progress], RecallSet]


@dataclass(frozen=True)
class RankerFit:
    """A fitted ranker over the shipped fit's item tables, and what it was chosen by.

    Attributes:
        model: In evaluation mode.
        metrics: Plain JSON values: NDCG@10 on the later window of each source, blend and ranker, and the choices made.
    """

    model: Ranker
    metrics: dict[str, Any]


def fit_ranker(
    dataset: Dataset,
    settings: Settings,
    *,
    seed: int,
    recall: RecallSet,
    progress: Progress = SILENT,
    fit_recall: FitRecall = fit_recall_set,
    sharing: Sharing = UNSHARED,
) -> RankerFit:
    """Trains the ranker on what recall really proposes before each label window.

    Args:
        dataset: All data; only the splits of ``settings.train.fit`` are used.
        settings: ``ranker``, ``recall``, ``serving.max_k`` and what ``fit_recall`` reads.
        seed: Of recall's refits, users drawn, weights, order and dropout.
        recall: The shipped recall models, fitted on all of ``settings.train.fit``.
        progress: Where bars and lines go.
        fit_recall: Refits recall on a window's past.
        sharing: Workers share examples and steps; what cannot be shared the first one does, so that all agree.

    Raises:
        TrainingError: No example has a hit, or a loss is not finite.
    """
    events, group = dataset.events.of_splits(settings.train.fit), sharing.group
    rng = np.random.default_rng(seed)
    windows = label_windows(
        events,
        count=settings.ranker.windows,
        has_times=dataset.has_times,
        share=settings.ranker.window_share,
        rng=rng,
    )
    shipped = group.agree(lambda: fitted_tables(dataset, events, recall, settings, seed))
    ranker = new_ranker(shape_of(dataset, settings, shipped, recall), shipped, seed)
    examples = [
        look_at(dataset, window, settings, seed, rng, progress, fit_recall, group).examples
        for window in windows
        if len(window.future)
    ]
    if len(examples) < len(windows) or not all(map(len, examples)):
        progress.say("ranker: too few users have a past and a later event to learn from; an even blend is shipped")
        ranker.strength.fill_(0.0)
        return RankerFit(ranker, {"users": 0, "strength": 0.0})
    *_, later = examples
    ranker.blend.copy_(torch.tensor(group.agree(lambda: choose_blend(examples))))
    if shipped.rating is not None:
        ranker.value_weight.fill_(group.agree(lambda: choose_value_weight(ranker, examples)))
    choice = _teach(ranker, examples, settings, seed, progress, sharing)
    metrics = group.agree(lambda: _metrics(ranker, later, choice))
    alone = ", ".join(f"{name} {metrics[f'ndcg@10_{name}']:.4f}" for name in recall.names)
    progress.say(
        f"ranker: NDCG@10 {alone}, blend {metrics['ndcg@10_blend']:.4f}, "
        f"with predicted values {metrics['ndcg@10_base']:.4f}, "
        f"{' + '.join(ranker.shape.members)} {choice.gain:+.4f} ± {choice.standard_error:.4f} "
        f"({'used' if choice.strength else 'not used'}) on {len(later):,} users"
    )
    return RankerFit(ranker.eval(), metrics)


def _teach(
    ranker: Ranker,
    examples: Sequence[Examples],
    settings: Settings,
    seed: int,
    progress: Progress,
    sharing: Sharing,
) -> Choice:
    """Chooses what the correction is worth and, where it is worth something, trains it on all windows."""
    chosen, generator = settings.ranker, torch.Generator().manual_seed(seed)
    *earlier, later = examples
    choice = None
    if NETWORK in chosen.members:
        choice = choose_network(
            ranker,
            earlier,
            later,
            chosen,
            generator=generator,
            member=chosen.members.index(NETWORK),
            progress=progress,
            sharing=sharing.part("trial"),
        )
    last: dict[str, Any] = {"progress": progress, "sharing": sharing.part("last")}
    if chosen.members == (NETWORK,) and choice is not None:
        ranker.strength.fill_(choice.strength)
        if choice.strength > 0:
            train_network(ranker, examples, chosen, epochs=choice.epochs, generator=generator, **last)
        return choice
    epochs = choice.epochs if choice is not None else 0
    folds: dict[str, Any] = {"progress": progress, "sharing": sharing.part("folds")}
    combination = choose_combination(ranker, examples, chosen, epochs=epochs, seed=seed, **folds)
    combination.apply(ranker)
    if combination.choice.strength > 0:
        train_members(ranker, examples, chosen, epochs=epochs, seed=seed, **last)
    return combination.choice


@dataclass(frozen=True)
class Look:
    """A label window with everything fitted on its past.

    Attributes:
        window: Past and future.
        recall: Fitted on the past.
        tables: Item tables of the same fit.
        examples: What recall proposes and what came true.
    """

    window: Window
    recall: RecallSet
    tables: ItemTables
    examples: Examples


def look_at(
    dataset: Dataset,
    window: Window,
    settings: Settings,
    seed: int,
    rng: np.random.Generator,
    progress: Progress,
    fit_recall: FitRecall,
    group: Group = ALONE,
) -> Look:
    """Fits recall on the window's past and makes its examples; arguments as of ``fit_ranker``."""
    recall = fit_recall(dataset, window.past, settings, seed, progress)
    tables = group.agree(lambda: fitted_tables(dataset, window.past, recall, settings, seed))
    liked = settings.ranker.target == "liked" and dataset.has_values
    relevant = is_liked(dataset, window.future) if liked else np.ones(len(window.future), dtype=bool)
    examples = build_examples(
        dataset,
        window,
        recall,
        tables,
        relevant,
        max_users=settings.ranker.max_users,
        rng=rng,
        progress=progress,
        group=group,
    )
    return Look(window, recall, tables, examples)


def fitted_tables(dataset: Dataset, events: Events, recall: RecallSet, settings: Settings, seed: int) -> ItemTables:
    """Item tables of one fit, the rating model included where the data has values."""
    rating = None
    if settings.ranker.predicted_values and dataset.has_values and bool((events.values != 0).any()):
        scale = scale_of(dataset, events, settings.rating.like_at)
        rating = build_model(dataset, events, scale, settings.rating, np.random.default_rng([seed, 1])).posterior()
    chosen = settings.ranker.content_dimension, settings.features.statistics
    return item_tables(dataset, events, recall.item_vectors, *chosen, rating)


def shape_of(dataset: Dataset, settings: Settings, tables: ItemTables, recall: RecallSet) -> RankerShape:
    """Sizes of a ranker over these tables and sources."""
    return RankerShape(
        n_items=dataset.n_items,
        sources=recall.names,
        candidates=recall.candidates,
        returned=min(settings.serving.max_k, recall.candidates * len(recall.names), dataset.n_items),
        dimension=tables.dimension,
        content_dimension=tables.keys.shape[1] - tables.dimension,
        item_columns=dataset.item_features.columns,
        user_columns=dataset.user_features.columns,
        embedding=settings.ranker.embedding,
        cross_layers=settings.ranker.cross_layers,
        hidden=settings.ranker.hidden,
        dropout=settings.ranker.dropout,
        members=settings.ranker.members,
        trees=settings.ranker.trees if TREES in settings.ranker.members else 0,
        tree_depth=settings.ranker.tree_depth if TREES in settings.ranker.members else 0,
        rating=tables.rating.as_facts() if tables.rating is not None else None,
    )


def new_ranker(shape: RankerShape, tables: ItemTables, seed: int) -> Ranker:
    """An untaught ranker with random weights."""
    with torch.random.fork_rng(devices=[]):  # torch.nn.init of layers takes no generator
        torch.manual_seed(seed)
        return Ranker(shape, tables).eval()


def _metrics(ranker: Ranker, later: Examples, choice: Choice) -> dict[str, Any]:
    """The later window's figures; ``ranker`` is the trial that had not seen this window, or the blend."""
    blend = ranker.blend.tolist()
    blended = float(ndcg_of_users(scores_of(by_blend(blend), later), later).mean())
    scores = scores_of(by_base(ranker), later)
    base, auc = float(ndcg_of_users(scores, later).mean()), mean_auc(scores, later)
    names = ranker.shape.sources
    alone = [float(ndcg_of_users(scores_of(by_source(at), later), later).mean()) for at in range(len(names))]
    return {
        "users": len(later),
        **{f"ndcg@10_{name}": round(value, 5) for name, value in zip(names, alone, strict=True)},
        "ndcg@10_blend": round(blended, 5),
        "ndcg@10_base": round(base, 5),
        "ndcg@10_ranker": round(base + (choice.gain if choice.strength else 0.0), 5),
        "network_gain": round(choice.gain, 5),
        "network_gain_standard_error": round(choice.standard_error, 5),
        "auc_base": round(auc, 5),
        "auc_ranker": round(choice.auc if choice.strength else auc, 5),
        **{f"blend_{name}": round(weight, 5) for name, weight in zip(names, blend, strict=True)},
        "value_weight": round(float(ranker.value_weight), 5),
        "strength": choice.strength,
        "epochs": choice.epochs,
    }

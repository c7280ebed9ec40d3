"""Fits a mix: its members, and the weights that add them up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from core.dataset import Dataset, Events
from core.errors import SettingsError
from core.progress import SILENT, Progress
from core.sections import MixSettings
from core.settings import Settings
from training.combine.boosting import boost
from training.combine.members import Member, Sample, fit_member, members_of, sample_without_replacement
from training.combine.tables import WindowTable, window_table
from training.combine.weights import (
    Learn,
    Learning,
    Trial,
    Weighting,
    best_member,
    clearly_better,
    cross_fitted,
    learn_weights,
)
from training.combine.windows import successive_windows
from training.loop import check_not_empty
from training.models.mix_model import MixRecall
from training.models.recall_base import Fitter, RecallModel, popularity_bias, recent_popularity
from training.ranking.windows import Window


@dataclass(frozen=True)
class Fit:
    """What every step of a fit needs."""

    dataset: Dataset
    events: Events
    settings: Settings
    fitters: Mapping[str, Fitter]
    seed: int
    progress: Progress


def fit_mix(
    dataset: Dataset,
    events: Events,
    settings: Settings,
    *,
    seed: int,
    fitters: Mapping[str, Fitter],
    progress: Progress = SILENT,
) -> MixRecall:
    """Trains the members on ``events`` and combines them.

    Learned weights come from members that were fitted on what lies before a window, judged by what that window's
    users did in it; then all members are fitted again on everything.

    Args:
        dataset: Gives the catalogue and the users.
        events: What to learn from, each (user, item) pair once.
        settings: The sections ``mix``, ``recall`` and those of the members.
        seed: Decides the members' seeds, samples and folds.
        fitters: How each kind of member is fitted.
        progress: Where bars and lines go.

    Raises:
        SettingsError: A member or a list of weights that makes no sense.
        TrainingError: No events, or a member that cannot be trained.
    """
    check_not_empty(events, "mix")
    members = members_of(settings, fitters)
    fit = Fit(dataset, events, settings, fitters, seed, progress)
    chosen = settings.mix
    if chosen.method == "boosting":
        models, weighting = boost(
            dataset, events, chosen, members, fitters, seed=seed, window=_windows(fit)[-1], progress=progress
        )
    elif chosen.method == "bagging":
        models, weighting = _bagged(fit, members)
    else:
        weighting = _weighting(fit, members)
        models, weighting = _fitted(fit, members, weighting)
    share = ", ".join(f"{weight:.2f}" for weight in weighting.weights.tolist())
    progress.say(f"mix: {', '.join(model.kind for model in models)} by {chosen.method}, weights {share}")
    recent = recent_popularity(events, dataset.n_items, settings.recall.popularity_half_life_days)
    return MixRecall(
        models,
        weighting.weights,
        torch.from_numpy(popularity_bias(recent, 1.0)),
        gate=weighting.gate,
        facts_mean=weighting.facts_mean,
        facts_scale=weighting.facts_scale,
        candidates=settings.recall.candidates,
    ).eval()


def _bagged(fit: Fit, members: Sequence[Member]) -> tuple[list[RecallModel], Weighting]:
    """Every member ``bags`` times on its own sample of users; a member that stands twice counts twice."""
    models, weights = [], []
    for at, member in enumerate(members):
        rng = np.random.default_rng([fit.seed, at])
        share, bags = fit.settings.mix.bag_share, fit.settings.mix.bags * member.copies
        samples: list[Sample | None] = [
            sample_without_replacement(fit.dataset.n_users, share, rng) if share < 1 else None for _ in range(bags)
        ]
        models += fit_member(
            member, fit.dataset, fit.events, fit.fitters, seed=fit.seed, samples=samples, progress=fit.progress
        )
        weights += [member.copies / bags] * bags
    return models, Weighting.fixed(torch.tensor(weights))


def _weighting(fit: Fit, members: Sequence[Member]) -> Weighting:
    """Weights of the different members, before they are split over copies."""
    chosen = fit.settings.mix
    even = Weighting.fixed(torch.ones(len(members)))
    if chosen.weights and chosen.method == "weighted":
        return Weighting.fixed(_given(chosen.weights, members))
    if chosen.method == "average" or len(members) == 1:
        return even
    return _learned(fit, members, even)


def _given(weights: Sequence[float], members: Sequence[Member]) -> torch.Tensor:
    if len(weights) != len(members) or min(weights) < 0 or sum(weights) == 0:
        raise SettingsError(
            "these weights do not fit the members",
            where="mix.weights",
            expected=f"{len(members)} numbers, none below 0 and one above it, for "
            + ", ".join(member.text for member in members),
            found=str(list(weights)),
        )
    return torch.tensor(weights)


def _learned(fit: Fit, members: Sequence[Member], even: Weighting) -> Weighting:
    """Even weights, unless a richer way clearly gains: by one standard error on users that it was not learned from."""
    tables = []
    for window in _windows(fit):
        models = [
            model
            for member in members
            for model in fit_member(member, fit.dataset, window.past, fit.fitters, seed=fit.seed, progress=fit.progress)
        ]
        rng = np.random.default_rng([fit.seed, 5])
        table = window_table(fit.dataset, window, models, max_users=fit.settings.mix.max_users, rng=rng)
        tables.append(table.grouped([member.copies for member in members]))
    best = Trial("even weights", np.concatenate([table.ndcg(even.weights) for table in tables]))
    weighting = even
    for name, learn in _ways(tables, fit.settings.mix).items():
        trial = cross_fitted(name, tables, learn)
        used = clearly_better(trial, best)
        fit.progress.say(
            f"mix: NDCG@10 {best.name} {best.values.mean():.4f}, {name} {trial.values.mean():.4f} "
            f"({'used' if used else 'not used'}) on {len(trial.values):,} users"
        )
        if used:
            best, weighting = trial, learn(None)
    return weighting


def _ways(tables: Sequence[WindowTable], chosen: MixSettings) -> dict[str, Learn]:
    """From simple to rich."""
    follow = chosen.follow_time and len(tables) > 1
    plain, by_user = (Learning(chosen.older_weight, follow, by_user=rich) for rich in (False, True))
    ways: dict[str, Learn] = {
        "the best member": partial(best_member, tables),
        "learned weights": partial(learn_weights, tables, plain),
    }
    if chosen.method == "stacking":
        ways["weights by user"] = partial(learn_weights, tables, by_user)
    return ways


def _windows(fit: Fit) -> tuple[Window, ...]:
    chosen = fit.settings.mix
    return successive_windows(
        fit.events,
        has_times=fit.dataset.has_times,
        share=chosen.window_share,
        count=chosen.windows,
        rng=np.random.default_rng([fit.seed, 6]),
    )


def _fitted(fit: Fit, members: Sequence[Member], weighting: Weighting) -> tuple[list[RecallModel], Weighting]:
    """Members with a weight above 0 on all events, each weight split evenly over the copies."""
    models: list[RecallModel] = []
    places, shares = [], []
    for at, member in enumerate(members):
        if weighting.weights[at] == 0:
            continue
        models += fit_member(member, fit.dataset, fit.events, fit.fitters, seed=fit.seed, progress=fit.progress)
        places += [at] * member.copies
        shares += [1 / member.copies] * member.copies
    index = torch.tensor(places)
    return models, Weighting(
        weighting.weights[index] * torch.tensor(shares),
        weighting.gate[index],
        weighting.facts_mean,
        weighting.facts_scale,
    )

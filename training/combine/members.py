"""The members of a mix: which models, with which settings, fitted on which users."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from core.dataset import Dataset, Events
from core.errors import SettingsError
from core.features import FeatureTable
from core.progress import SILENT, Progress
from core.settings import Settings, override
from core.vocabulary import Vocabulary
from training.models.recall_base import Fitter, RecallModel

SEED_STEP = 1_000
"""Between the seeds of two fits of the same mix."""


@dataclass(frozen=True)
class Member:
    """One different entry of ``mix.members``.

    Attributes:
        text: As written in the settings.
        model: Name of the recall model.
        settings: All settings with the entry's own changes.
        copies: How often it is fitted, each time with another seed.
    """

    text: str
    model: str
    settings: Settings
    copies: int


def members_of(settings: Settings, fitters: Mapping[str, Fitter]) -> tuple[Member, ...]:
    """The different entries of ``mix.members``, in order.

    Raises:
        SettingsError: An unknown model, a mix within a mix, or a setting that the model does not have.
    """
    texts = [" ".join(text.split()) for text in settings.mix.members]
    return tuple(_member(text, settings, fitters, texts.count(text)) for text in dict.fromkeys(texts))


def _member(text: str, settings: Settings, fitters: Mapping[str, Fitter], copies: int) -> Member:
    name, *changes = text.split() or [""]
    if name not in fitters:
        raise SettingsError(
            "unknown member of the mix", where="mix.members", expected=" | ".join(fitters), found=text or '""'
        )
    return Member(text, name, override(settings, (f"{name}.{change}" for change in changes)), copies)


@dataclass(frozen=True)
class Sample:
    """Users drawn for one fit.

    Attributes:
        users: int64 ``(n,)``, user rows; one that is drawn twice counts as two users with the same events.
    """

    users: np.ndarray

    def of(self, dataset: Dataset, events: Events) -> tuple[Dataset, Events]:
        """Dataset and events in which the drawn users have the rows ``0..n-1``; events stay in time order."""
        order = np.argsort(events.user_rows, kind="stable")
        counts = np.bincount(events.user_rows, minlength=dataset.n_users)
        starts = np.cumsum(counts) - counts
        lengths = counts[self.users]
        owners = np.repeat(np.arange(len(self.users)), lengths)
        within = np.arange(len(owners)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        places = order[starts[self.users][owners] + within]
        in_time = np.argsort(places, kind="stable")
        drawn = replace(events.where(places[in_time]), user_rows=owners[in_time].astype(events.user_rows.dtype))
        users = Vocabulary([str(row) for row in range(len(self.users))])
        features = FeatureTable(dataset.user_features.columns, dataset.user_features.codes[self.users])
        return replace(dataset, events=drawn, users=users, user_features=features), drawn


def sample_without_replacement(n_users: int, share: float, rng: np.random.Generator) -> Sample:
    """A random ``share`` of all users, each once."""
    count = max(1, round(share * n_users))
    return Sample(np.sort(rng.choice(n_users, count, replace=False)))


def sample_by_weight(weights: np.ndarray, rng: np.random.Generator) -> Sample:
    """As many users as there are, drawn with replacement in proportion to ``weights``.

    Systematic sampling: a user of weight w times the mean is drawn w times, rounded up or down.
    """
    ends = np.cumsum(weights / weights.sum() * len(weights))
    ends[-1] = len(weights)
    draws = np.diff(np.floor(ends + rng.random()).astype(np.int64), prepend=0)
    return Sample(np.repeat(np.arange(len(weights)), draws))


def fit_member(
    member: Member,
    dataset: Dataset,
    events: Events,
    fitters: Mapping[str, Fitter],
    *,
    seed: int,
    samples: Sequence[Sample | None] | None = None,
    progress: Progress = SILENT,
) -> list[RecallModel]:
    """All copies of a member.

    Args:
        member: Which model.
        dataset: Gives the catalogue.
        events: What to learn from.
        fitters: By name.
        seed: Of the first copy.
        samples: Users of each copy; None takes all users.
        progress: Where bars go.
    """
    models = []
    for copy, sample in enumerate(samples or [None] * member.copies):
        part = (dataset, events) if sample is None else sample.of(dataset, events)
        fitted = fitters[member.model](*part, member.settings, seed=seed + SEED_STEP * copy, progress=progress)
        models.append(fitted)
    return models

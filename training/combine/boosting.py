"""Boosting: each further member learns mostly from the users that the sum so far serves badly.

AdaRank's idea (Xu and Li 2007) for fitted models as weak learners: the weight of a user grows with one minus NDCG.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from core.bootstrap import standard_error
from core.dataset import Dataset, Events
from core.progress import SILENT, Progress
from core.sections import MixSettings
from training.combine.members import Member, Sample, fit_member, sample_by_weight
from training.combine.tables import WindowTable, window_table
from training.combine.weights import Weighting
from training.models.recall_base import Fitter, RecallModel
from training.ranking.windows import Window

STEPS = (0.125, 0.25, 0.5, 1.0, 2.0)
"""Tried weights of a further member against the sum so far."""
STRENGTH = 2.0
"""A user with NDCG 0 weighs e^2 times one with NDCG 1."""


@dataclass(frozen=True)
class Learner:
    """One model of the sum: which member, on which users, from which seed."""

    member: Member
    sample: Sample | None
    seed: int

    def fit(
        self, dataset: Dataset, events: Events, fitters: Mapping[str, Fitter], progress: Progress
    ) -> list[RecallModel]:
        """The model, as a list of one."""
        return fit_member(
            self.member, dataset, events, fitters, seed=self.seed, samples=[self.sample], progress=progress
        )


def boost(
    dataset: Dataset,
    events: Events,
    settings: MixSettings,
    members: Sequence[Member],
    fitters: Mapping[str, Fitter],
    *,
    seed: int,
    window: Window,
    progress: Progress = SILENT,
) -> tuple[list[RecallModel], Weighting]:
    """Chooses learners and weights on a held-out window, then fits the chosen ones on all events.

    The window's users are halved: one half says who is served badly and which step is best, the other whether the
    sum gains by more than one standard error. It ends when every member in turn has brought nothing. Users outside
    the window weigh what an average one does.

    Args:
        dataset: Gives the catalogue and the users.
        events: All events to learn from.
        settings: The section ``mix``.
        members: Taken in turn, over and over.
        fitters: By name.
        seed: Of fits and samples.
        window: The newest held-out window.
        progress: Where bars and lines go.
    """
    rng = np.random.default_rng([seed, 7])
    learners = [Learner(members[0], None, seed)]
    models = learners[0].fit(dataset, window.past, fitters, progress)
    weights, failures = [1.0], 0
    for turn in range(1, settings.rounds):
        table = _table(dataset, window, models, settings, seed)
        served, teaches = table.ndcg(torch.tensor(weights)), table.users % 2 == 0
        sample = sample_by_weight(_user_weights(dataset.n_users, table.users[teaches], served[teaches]), rng)
        learner = Learner(members[turn % len(members)], sample, seed + turn)
        further = learner.fit(dataset, window.past, fitters, progress)
        table = _table(dataset, window, models + further, settings, seed)
        steps = [settings.shrinkage * step * sum(weights) for step in STEPS]
        values = [table.ndcg(torch.tensor([*weights, step])) for step in steps]
        best = int(np.argmax([value[teaches].mean() for value in values]))
        gains = (values[best] - served)[~teaches]
        used = gains.mean() > standard_error(gains)
        progress.say(
            f"mix: boosting by {learner.member.text}, NDCG@10 {gains.mean():+.4f} ± {standard_error(gains):.4f} "
            f"on held-out users ({'used' if used else 'not used'})"
        )
        if used:
            learners.append(learner)
            models += further
            weights.append(steps[best])
            failures = 0
        else:
            failures += 1
            if failures == len(members):
                break
    final = [model for learner in learners for model in learner.fit(dataset, events, fitters, progress)]
    return final, Weighting.fixed(torch.tensor(weights))


def _table(
    dataset: Dataset, window: Window, models: Sequence[RecallModel], settings: MixSettings, seed: int
) -> WindowTable:
    rng = np.random.default_rng([seed, 5])
    return window_table(dataset, window, models, max_users=settings.max_users, rng=rng)


def _user_weights(n_users: int, users: np.ndarray, served: np.ndarray) -> np.ndarray:
    """``exp(-STRENGTH * NDCG)``, scaled to a mean of 1 over the users that have one; 1 for all others."""
    weights = np.ones(n_users)
    hard = np.exp(-STRENGTH * served)
    weights[users] = hard / hard.mean() if len(hard) else 1.0
    return weights

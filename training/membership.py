"""Does a recall model betray who it learned from? The attack of Yeom et al. 2018 by its loss, on users held out whole.

Half of the users are members: a model is fitted on their events alone. The attacker holds a user's whole history but
one event, asks the model for a list, and looks how probable the missing event is in it. Where members and others look
alike, the model does not tell whose events it has seen.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from core.dataset import Dataset, Events, histories_of
from core.errors import SettingsError
from core.histories import pad
from core.progress import SILENT, Progress
from core.rating_metrics import auc
from core.settings import Settings
from training.models.fitters import fitter
from training.models.recall import RecallModel
from training.models.recall_base import Fitter
from training.requests import user_codes

LEAST_EVENTS = 3
"""Of a user who is attacked."""
BATCH_USERS = 256
RESAMPLES = 1_000


@dataclass(frozen=True)
class Membership:
    """What the attack gained.

    Attributes:
        auc: Probability that a random member looks more like one than a random other user, ties half; .5 is blind.
        low: Lower end of the 95 % bootstrap interval over users.
        high: Upper end.
        members: Users attacked whom the model learned from.
        others: Users attacked whom it did not.
    """

    auc: float
    low: float
    high: float
    members: int
    others: int


def audit_membership(
    name: str, dataset: Dataset, settings: Settings, progress: Progress = SILENT, fit: Fitter | None = None
) -> Membership:
    """Fits one recall model on half of the users and attacks it.

    Args:
        name: A recall model.
        dataset: All data; its splits of ``train.fit`` are used.
        settings: As the model is trained with.
        progress: Where the fit's bars go.
        fit: Another way to fit it; the central one by default.

    Raises:
        SettingsError: Fewer than two users of either kind have enough events.
    """
    events = dataset.events.of_splits(settings.train.fit)
    rng = np.random.default_rng([settings.train.seed, 11])
    is_member = rng.permutation(dataset.n_users) < dataset.n_users // 2
    model = (fit or fitter(name))(
        dataset, events.where(is_member[events.user_rows]), settings, seed=settings.train.seed, progress=progress
    ).eval()
    users, hidden = hide_one(events, dataset.n_users, rng)
    taken = is_member[users]
    if min(taken.sum(), (~taken).sum()) < 2:
        raise SettingsError(
            "nobody to attack", where="train.fit", expected=f"users with {LEAST_EVENTS} events and more",
            found=f"{int(taken.sum())} members, {int((~taken).sum())} others", next_step="take more data",
        )  # fmt: skip
    seen = np.ones(len(events), dtype=bool)
    seen[hidden] = False
    surprise = probability_of(model, dataset, events.where(seen), users, events.item_rows[hidden])
    low, high = _interval(taken, surprise, rng)
    return Membership(auc(taken, surprise), low, high, int(taken.sum()), int((~taken).sum()))


def hide_one(events: Events, n_users: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Users with enough events, and the place in ``events`` of one of each, drawn at random; int64 ``(U,)`` both."""
    counts = np.bincount(events.user_rows, minlength=n_users)
    users = np.flatnonzero(counts >= LEAST_EVENTS)
    order = np.argsort(events.user_rows, kind="stable")
    starts = np.concatenate([[0], np.cumsum(counts)])
    return users, order[starts[users] + rng.integers(counts[users])]


@torch.no_grad()
def probability_of(
    model: RecallModel, dataset: Dataset, past: Events, users: np.ndarray, item_rows: np.ndarray
) -> np.ndarray:
    """Log-probability under the softmax over what a user has not seen, float64 ``(U,)``.

    Args:
        model: In evaluation mode.
        dataset: Its users.
        past: What the model is told of them.
        users: int64 ``(U,)``.
        item_rows: The item asked about, of each.
    """
    histories = histories_of(past, dataset.n_users)
    found = np.empty(len(users))
    for start in range(0, len(users), BATCH_USERS):
        part = slice(start, start + BATCH_USERS)
        padded = pad(histories.select(users[part]), dataset.n_items)
        rows, ages, values, kinds = map(torch.from_numpy, (padded.rows, padded.ages, padded.values, padded.kinds))
        scores = model.scores(rows, ages, values, kinds, user_codes(dataset, users[part]))
        wanted = torch.from_numpy(item_rows[part].astype(np.int64))[:, None]
        asked = scores.gather(1, wanted)  # a repeated item is among the seen ones: asked about all the same
        scores = scores.scatter(1, torch.from_numpy(padded.exclude), -torch.inf).scatter(1, wanted, asked)
        found[part] = torch.log_softmax(scores, 1).gather(1, wanted)[:, 0].numpy()
    return found


def _interval(is_member: np.ndarray, values: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    members, others = values[is_member], values[~is_member]
    flags = np.repeat([True, False], [len(members), len(others)])
    drawn = [
        auc(flags, np.concatenate([rng.choice(members, len(members)), rng.choice(others, len(others))]))
        for _ in range(RESAMPLES)
    ]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)

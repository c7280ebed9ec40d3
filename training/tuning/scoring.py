"""How good a recall model's lists are on a window, and how sure that is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from core.dataset import Dataset, histories_of
from core.errors import SettingsError
from core.histories import pad
from core.metrics import accuracy_metrics, hits, truth_of
from core.tensors import MASKED
from training.models.recall_base import RecallModel
from training.ranking.examples import propose, user_codes
from training.ranking.windows import Window

CELLS_PER_BATCH = 1 << 22
"""Users are batched so that histories and catalogue stay under this many cells."""
METRICS = tuple(name.removesuffix("@1") for name in accuracy_metrics(np.zeros((1, 1), bool), np.ones(1, int), (1,)))


@dataclass(frozen=True)
class UserValues:
    """A metric on one window.

    Attributes:
        users: User rows, int64 ``(users,)``.
        values: One value per user ``(users,)``.
    """

    users: np.ndarray
    values: np.ndarray


def metric_of(text: str, longest: int) -> tuple[str, int]:
    """Name and k of a metric such as ``ndcg@10``.

    Raises:
        SettingsError: No such metric, or a k beyond ``longest``, the list that a model returns.
    """
    name, _, raw = text.partition("@")
    if name not in METRICS or not raw.isdigit() or int(raw) < 1:
        raise SettingsError(
            f"unknown metric {text}", where="tune.metric", expected=f"{', '.join(METRICS)}, then @k as in ndcg@10"
        )
    if int(raw) > longest:
        raise SettingsError(
            "the metric looks further than the lists go",
            where="tune.metric",
            expected=f"at most @{longest} (recall.candidates)",
            found=text,
        )
    return name, int(raw)


@torch.no_grad()
def score_window(
    model: RecallModel, dataset: Dataset, window: Window, metric: str, *, max_users: int, rng: np.random.Generator
) -> UserValues:
    """Ranks the whole catalogue for the window's users, seen items masked, and compares with what they did next.

    Args:
        model: Fitted on the window's past.
        dataset: Gives the numbers of users and items.
        window: Past and future.
        metric: For example ``ndcg@10``.
        max_users: Most users; a random choice where there are more.
        rng: Draws that choice.
    """
    name, k = metric_of(metric, model.candidates)
    users = np.unique(window.future.user_rows)
    if len(users) > max_users:
        users = np.sort(rng.choice(users, max_users, replace=False))
    histories = histories_of(window.past, dataset.n_users)
    users = users[np.argsort(histories.lengths[users], kind="stable")]  # neighbours share a padded length
    lists = np.full((len(users), k), -1, dtype=np.int64)
    for part in _chunks(histories.lengths[users], dataset.n_items):
        padded = pad(histories.select(users[part]), dataset.n_items)
        rows, scores = propose(model, padded, user_codes(dataset, users[part]))
        lists[part] = np.where(scores[:, :k].numpy() <= MASKED, -1, rows[:, :k].numpy())
    place = np.full(dataset.n_users, -1)
    place[users] = np.arange(len(users))
    kept = place[window.future.user_rows] >= 0
    truth = truth_of(place[window.future.user_rows[kept]], window.future.item_rows[kept], len(users))
    values = accuracy_metrics(hits(lists, truth), truth.sizes, (k,))[f"{name}@{k}"]
    return UserValues(users, values)


def mean_over_windows(scored: Sequence[UserValues]) -> tuple[float, np.ndarray]:
    """The mean of the windows' means, and how far each user moves it: the root sum of squares is its standard error.

    A user of several windows is one draw, not several: deviations are added up per user before they are squared
    (linearised cluster variance, Cameron and Miller 2015, eq. 11).

    Returns:
        The mean, and deviations float64 ``(users,)`` in the order of user rows.
    """
    means = [float(part.values.mean()) for part in scored]
    users = np.concatenate([part.users for part in scored])
    deviations = np.concatenate(
        [(part.values - mean) / (len(part.users) * len(scored)) for part, mean in zip(scored, means, strict=True)]
    )
    _, owner = np.unique(users, return_inverse=True)
    per_user = np.bincount(owner, deviations)
    count = len(per_user)
    return float(np.mean(means)), per_user * np.sqrt(count / max(1, count - 1))


def _chunks(lengths: np.ndarray, n_items: int) -> Iterator[slice]:
    start = 0
    while start < len(lengths):
        stop = start + 1
        while stop < len(lengths) and (stop + 1 - start) * max(n_items, 64 * int(lengths[stop])) <= CELLS_PER_BATCH:
            stop += 1
        yield slice(start, stop)
        start = stop

"""One scorer for everyone: lists in, metrics per user out, by core.metrics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from bench.adapters.contract import Problem
from core.bootstrap import Difference, paired_bootstrap, standard_error
from core.dataset import Dataset, Events
from core.metrics import Truth, accuracy_metrics, hits, truth_of

KS = (10, 20, 100)
LONGEST = max(KS)
WINNING_ERRORS = 2.0
"""A difference counts as a win above this many standard errors."""

PerUser = dict[str, np.ndarray]


class BadListsError(Exception):
    """Lists with seen or repeated items; such a row is no measurement."""


@dataclass(frozen=True)
class Group:
    """Users and what they really did.

    Attributes:
        places: Which of the question's users, int64 ``(G,)``.
        truth: Their relevant items.
    """

    places: np.ndarray
    truth: Truth


@dataclass(frozen=True)
class Question:
    """Whom a protocol asks about.

    Attributes:
        problem: What may be learned, what is masked, who is asked.
        groups: ``warm`` (users with fitted events), ``all``, and ``liked`` where the data has values: warm users, only
            items valued highly are relevant.
    """

    problem: Problem
    groups: dict[str, Group]


def question(
    dataset: Dataset,
    fit: Sequence[str],
    mask: Sequence[str],
    split: str,
    liked_from: float | None = None,
    most_users: int | None = None,
) -> Question:
    """Builds the question of predicting ``split`` after learning from ``fit``.

    Items of the masked splits are no truth; cold items are. Above ``most_users`` users, so many are drawn.
    """
    fitted, masked = dataset.events.of_splits(fit), dataset.events.of_splits(mask)
    later = dataset.events.of_splits((split,))
    width = np.int64(dataset.n_items)
    later = later.where(~np.isin(_pairs(later, width), _pairs(masked, width)))
    users = np.unique(later.user_rows).astype(np.int64)
    if most_users is not None and len(users) > most_users:
        users = np.sort(np.random.default_rng(0).choice(users, most_users, replace=False))
        later = later.where(np.isin(later.user_rows, users))
    warm = np.isin(users, fitted.user_rows)
    seen = sp.csr_matrix(
        (np.ones(len(masked), dtype=bool), (masked.user_rows, masked.item_rows)), shape=(dataset.n_users, width)
    )
    problem = Problem(
        dataset.n_users,
        dataset.n_items,
        fitted.user_rows,
        fitted.item_rows,
        fitted.timestamps,
        seen,
        users,
    )
    groups = {
        "warm": _group(users, warm, later),
        "all": _group(users, np.ones_like(warm), later),
    }
    if liked_from is not None and dataset.has_values:
        liked = later.where(later.raw_values >= liked_from)
        chosen = warm & np.isin(users, liked.user_rows)
        if chosen.any():
            groups["liked"] = _group(users, chosen, liked)
    return Question(problem, groups)


def per_user(asked: Question, lists: np.ndarray) -> dict[str, PerUser]:
    """Metrics of every group, keyed ``ndcg@10`` and so on, each ``(G,)``.

    Raises:
        BadListsError: A list with a masked or repeated item.
    """
    check_lists(asked.problem, lists)
    values = {}
    for name, group in asked.groups.items():
        own = lists[group.places, :LONGEST]
        values[name] = accuracy_metrics(hits(own, group.truth), group.truth.sizes, KS)
    return values


def check_lists(problem: Problem, lists: np.ndarray) -> None:
    """Raises BadListsError where a list has a masked or repeated item, or is for other users."""
    if len(lists) != len(problem.query_users):
        raise BadListsError(f"{len(lists)} lists for {len(problem.query_users)} users")
    users = np.repeat(problem.query_users, lists.shape[1])
    items = lists.ravel()
    there = items >= 0
    masked = np.asarray(problem.seen[users[there], items[there]]).ravel()
    if masked.any():
        raise BadListsError(f"{int(masked.sum())} recommended items were already seen")
    ordered = np.sort(lists, axis=1)
    if ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any():
        raise BadListsError("a list repeats an item")


def mean_over_seeds(runs: Sequence[dict[str, PerUser]]) -> dict[str, PerUser]:
    """Per user, the mean of a metric over the seeds."""
    return {
        group: {name: np.mean([run[group][name] for run in runs], axis=0) for name in runs[0][group]}
        for group in runs[0]
    }


def compare(ours: np.ndarray, theirs: np.ndarray, seed: int = 0) -> tuple[Difference, str]:
    """Paired difference over users, and what it says: wins, loses, or even within two standard errors."""
    gap = paired_bootstrap(ours, theirs, np.random.default_rng(seed))
    if abs(gap.mean) <= WINNING_ERRORS * gap.standard_error:
        return gap, "even"
    return gap, "wins" if gap.mean > 0 else "loses"


def summary(values: PerUser) -> dict[str, float]:
    """Means over users, and the standard errors of the NDCGs."""
    means = {name: round(float(value.mean()), 5) for name, value in values.items()}
    errors = {f"{name}_se": round(standard_error(v), 5) for name, v in values.items() if name.startswith("ndcg")}
    return means | errors


def _group(users: np.ndarray, chosen: np.ndarray, later: Events) -> Group:
    places = np.flatnonzero(chosen)
    keep = np.isin(later.user_rows, users[places])
    index = np.searchsorted(users[places], later.user_rows[keep])
    return Group(places, truth_of(index, later.item_rows[keep], len(places)))


def _pairs(events: Events, width: np.int64) -> np.ndarray:
    keys: np.ndarray = events.user_rows.astype(np.int64) * width + events.item_rows
    return keys

"""Users with a known truth: what they really did later decides what they click.

Every user's later items are dealt in two: some can be taken during the simulation, the rest is never shown to any
model and measures every release alike. A visit shows a slate; the user examines it from the top with falling
patience, clicks what is among their items, and now and then takes one of them without having been shown it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from core.dataset import Dataset
from core.feedback_labels import TRAINING_EVENTS
from core.metrics import Truth, hits, ndcg, truth_of

PATIENCE = 0.9
"""Chance that a user looks at the next place."""
ON_THEIR_OWN = 2
"""Items that a user takes per visit without being shown them."""
SECONDS_PER_VISIT = 60.0

Recommend = Callable[[Sequence[str], int, Sequence[Sequence[str]], Sequence[Sequence[str]]], list[list[str]]]
"""Users, k, session items and excluded items to lists of item ids."""


@dataclass
class Users:
    """The simulated users.

    Attributes:
        ids: External ids.
        past: Item ids that are known of each user when the simulation starts.
        takes: What each can take, in the order in which they really did.
        held_out: What each also did, kept for measuring.
        taken: What was taken in the simulation, oldest first.
        since_release: Of these, what the live release does not know.
        labels: (user, item, time) of everything taken.
        now: Seconds since the epoch.
    """

    ids: list[str]
    past: list[list[str]]
    takes: list[list[str]]
    held_out: list[list[str]]
    now: float
    taken: list[list[str]] = field(default_factory=list)
    since_release: list[list[str]] = field(default_factory=list)
    labels: list[tuple[str, str, float]] = field(default_factory=list)

    def table(self) -> pa.Table:
        """Labels as the event store gives them."""
        users, items, times = zip(*self.labels, strict=True) if self.labels else ((), (), ())
        n = len(self.labels)
        columns = [users, items, times, [None] * n, ["click"] * n]
        return pa.table(
            [pa.array(column, field_.type) for column, field_ in zip(columns, TRAINING_EVENTS, strict=True)],
            schema=TRAINING_EVENTS,
        )


def simulated_users(dataset: Dataset, known_share: float, rng: np.random.Generator) -> tuple[Users, np.ndarray]:
    """Users of a dataset, and which of its events (bool ``(events,)``) the first release may know.

    Args:
        dataset: Everything that really happened.
        known_share: Of each user's events, the earliest.
        rng: Deals the later items.
    """
    events = dataset.events
    known = np.zeros(len(events), dtype=bool)
    users = Users([], [], [], [], float(events.timestamps[np.isfinite(events.timestamps)].max()))
    order = np.argsort(events.user_rows, kind="stable")
    for part in np.split(order, np.flatnonzero(np.diff(events.user_rows[order])) + 1):
        count = max(2, round(known_share * len(part)))
        known[part[:count]] = True
        later = part[count:]
        dealt = rng.random(len(later)) < 0.5
        name = lambda places: [str(dataset.items.ids[events.item_rows[at]]) for at in places]  # noqa: E731
        users.ids.append(str(dataset.users.ids[events.user_rows[part[0]]]))
        users.past.append(name(part[:count]))
        users.takes.append(name(later[dealt]))
        users.held_out.append(name(later[~dealt]))
    users.taken = [[] for _ in users.ids]
    users.since_release = [[] for _ in users.ids]
    return users, known


def visit(users: Users, chosen: np.ndarray, recommend: Recommend, k: int, rng: np.random.Generator) -> tuple[int, int]:
    """One visit of each chosen user; gives back places looked at and clicks on the slate."""
    ids = [users.ids[at] for at in chosen]
    seen = [users.past[at] + users.taken[at] for at in chosen]
    slates = recommend(ids, k, [users.since_release[at] for at in chosen], seen)
    looked, clicks = 0, 0
    for at, slate in zip(chosen.tolist(), slates, strict=True):
        left = [item for item in users.takes[at] if item not in users.taken[at]]
        patience = int(rng.geometric(1 - PATIENCE))
        looked += min(patience, len(slate))
        found = [item for item in slate[:patience] if item in left]
        clicks += len(found)
        own = [item for item in left if item not in found][:ON_THEIR_OWN]
        for item in (*found, *own):
            users.now += SECONDS_PER_VISIT / len(users.ids)
            users.labels.append((users.ids[at], item, users.now))
            users.taken[at].append(item)
            users.since_release[at].append(item)
    return looked, clicks


def held_out_quality(users: Users, recommend: Recommend, k: int = 10) -> np.ndarray:
    """NDCG@k of each user on what no model has ever seen ``(U,)``; NaN for users without any.

    Only what was known at the start of the simulation is left out of the lists: every release is asked the same.
    """
    lists = recommend(
        users.ids,
        k,
        [[] for _ in users.ids],
        [past + taken for past, taken in zip(users.past, users.taken, strict=True)],
    )
    codes: dict[str, int] = {}
    rows = np.full((len(lists), k), -1, dtype=np.int64)
    for at, items in enumerate(lists):
        for place, item in enumerate(items):
            rows[at, place] = codes.setdefault(item, len(codes))
    owners = np.repeat(np.arange(len(lists)), [len(items) for items in users.held_out])
    truth: Truth = truth_of(
        owners,
        np.array([codes.setdefault(i, len(codes)) for items in users.held_out for i in items], dtype=np.int64),
        len(lists),
    )
    values = ndcg(hits(rows, truth), truth.sizes, k)
    return np.where(truth.sizes > 0, values, np.nan)

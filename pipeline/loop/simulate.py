"""Users with a known truth: what they really did later decides what they click.

The world's events are cut by time in three: what the first release may know, what the simulated users do, and a final
window that measures every release and that nobody can click. A visit falls on the time of real events. The user looks
at the slate from the top with falling patience, clicks what they really took then or soon after (before the final
window), slips now and then, and finds some of the visit's items without the slate. Which release made the slate
decides only what is looked at, never what is liked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from core.dataset import Dataset
from core.feedback_labels import TRAINING_EVENTS

Recommend = Callable[[Sequence[str], int, Sequence[Sequence[str]], Sequence[Sequence[str]]], list[list[str]]]
"""Users, k, session items and excluded items to lists of item ids."""


@dataclass(frozen=True)
class Habits:
    """How users behave; the same for every release.

    Attributes:
        patience: Chance of looking at the next place: position bias.
        click: Chance that something wanted is clicked when it is seen.
        slip: Chance that something unwanted is.
        elsewhere: Chance that an item of the visit is found without the slate.
        events_per_visit: Real events that make a visit.
        foresight: Real events ahead, the visit's own included, that are wanted already. Far ahead, labels would be
            what the live release happened to show, and the gate, which judges by labels, would favour it.
    """

    patience: float = 0.9
    click: float = 0.9
    slip: float = 0.01
    elsewhere: float = 0.8
    events_per_visit: int = 8
    foresight: int = 16


@dataclass
class Users:
    """The simulated users.

    Attributes:
        ids: External ids ``(U,)``.
        coming: What each really does in the simulated part: (time, item id), oldest first.
        past: Item ids that the first release may know of each.
        taken: What was taken in the simulation, oldest first.
        since_release: Of these, what the live release has not seen.
        labels: (user, item, time) of everything taken.
    """

    ids: list[str]
    coming: list[list[tuple[float, str]]]
    past: list[list[str]]
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


@dataclass(frozen=True)
class Traffic:
    """What one period brought: visits, places that users looked at, clicks on them, items found elsewhere."""

    visits: int
    looked: int
    clicks: int
    elsewhere: int


def own_pace(user_rows: np.ndarray, timestamps: np.ndarray) -> np.ndarray:
    """Times ``(events,)``: users arrive when they really did, and spread what they do evenly until the end.

    In MovieLens a user rates everything within an hour of arriving: a later window would hold nobody who was there
    before. The order of each user's events and of the arrivals is the real one.
    """
    order = np.lexsort((timestamps, user_rows))
    owners = user_rows[order]
    counts = np.bincount(owners)
    starts = np.cumsum(counts) - counts
    first = np.full(len(counts), np.inf)
    np.minimum.at(first, owners, timestamps[order])
    ranks = np.arange(len(owners)) - starts[owners]
    end = float(timestamps.max())
    times = np.empty(len(owners))
    times[order] = first[owners] + (end - first[owners]) * ranks / counts[owners]
    return times


def simulated_users(world: Dataset) -> Users:
    """Users of a world whose splits are what is known (train), what is simulated (valid) and the final window (test).

    Nothing of the final window comes in: it can neither be clicked nor found.
    """
    names = [str(name) for name in world.users.ids]
    users = Users(names, [[] for _ in names], [[] for _ in names], [[] for _ in names], [[] for _ in names])
    known, coming = world.events.of_splits(("train",)), world.events.of_splits(("valid",))
    for user, item in zip(known.user_rows.tolist(), known.item_rows.tolist(), strict=True):
        users.past[user].append(str(world.items.ids[item]))
    order = np.argsort(coming.timestamps, kind="stable")
    for at in order.tolist():
        item = str(world.items.ids[coming.item_rows[at]])
        users.coming[int(coming.user_rows[at])].append((float(coming.timestamps[at]), item))
    return users


def live_through(
    users: Users, start: float, end: float, recommend: Recommend, k: int, rng: np.random.Generator, habits: Habits
) -> Traffic:
    """Everything that happens from ``start`` until before ``end`` (seconds since the epoch) under one release.

    Users do not see each other, so that everybody's n-th visit is asked for in one batch; times stay their own.
    """
    due = [[event for event in events if start <= event[0] < end] for events in users.coming]
    size = habits.events_per_visit
    visits, looked, clicks, elsewhere = 0, 0, 0, 0
    for turn in range(-(-max(map(len, due), default=0) // size)):
        there = [at for at, events in enumerate(due) if len(events) > turn * size]
        slates = recommend(
            [users.ids[at] for at in there],
            k,
            [users.since_release[at] for at in there],
            [users.past[at] + users.taken[at] for at in there],
        )
        visits += len(there)
        for at, slate in zip(there, slates, strict=True):
            part = due[at][turn * size : (turn + 1) * size]
            now = part[0][0]
            taken = set(users.taken[at])
            later = [item for time, item in users.coming[at] if time >= now]
            wanted = set(later[: habits.foresight]) - taken
            seen = slate[: int(rng.geometric(1 - habits.patience))]
            chances = rng.random(len(seen))
            found = [
                item
                for item, chance in zip(seen, chances, strict=True)
                if chance < (habits.click if item in wanted else habits.slip)
            ]
            own = [item for _, item in part if item not in taken and item not in found]
            own = [item for item, chance in zip(own, rng.random(len(own)), strict=True) if chance < habits.elsewhere]
            looked, clicks, elsewhere = looked + len(seen), clicks + len(found), elsewhere + len(own)
            for item in (*found, *own):
                users.labels.append((users.ids[at], item, now))
                users.taken[at].append(item)
                users.since_release[at].append(item)
    return Traffic(visits, looked, clicks, elsewhere)

"""Events of two kinds with a known right answer: purchases follow the user's group, clicks follow nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from core.dataset import Dataset, Events
from core.features import FeatureTable
from core.histories import SECONDS_PER_DAY
from core.vocabulary import Vocabulary

KINDS = ("", "click", "purchase")
CLICK, PURCHASE = 1, 2
GROUPS, GROUP_ITEMS = 6, 25
CLICKS, PURCHASES = 16, 5
"""Per user and session."""
SESSIONS = 3


def noisy_clicks(seed: int = 0, n_users: int = 240) -> Dataset:
    """The last session's purchases are the test split; nothing is clicked and bought."""
    rng = np.random.default_rng(seed)
    n_items = GROUPS * GROUP_ITEMS
    groups = rng.integers(GROUPS, size=n_users)
    own = np.arange(n_items) // GROUP_ITEMS == groups[:, None]
    bought_first = np.argsort(rng.random(own.shape) - own, axis=1)[:, : PURCHASES * SESSIONS]
    keys = rng.random(own.shape)
    np.put_along_axis(keys, bought_first, 2.0, axis=1)
    clicked = np.argsort(keys, axis=1)[:, : CLICKS * SESSIONS]
    per_session = [
        part[:, session * size : (session + 1) * size]
        for session in range(SESSIONS)
        for part, size in ((clicked, CLICKS), (bought_first, PURCHASES))
    ]
    items = np.concatenate(per_session, axis=1)
    kinds = np.tile(np.repeat([CLICK, PURCHASE], [CLICKS, PURCHASES]), SESSIONS)
    session = np.repeat(np.arange(SESSIONS), CLICKS + PURCHASES)
    minutes = rng.permuted(np.tile(np.arange(items.shape[1]), (n_users, 1)), axis=1)
    times = (session * 10 + minutes / 1440) * SECONDS_PER_DAY
    users = np.repeat(np.arange(n_users), items.shape[1])
    events = Events(
        users.astype(np.int32),
        items.ravel().astype(np.int32),
        times.ravel(),
        np.zeros(len(users), np.float32),
        np.full(len(users), np.nan, np.float32),
        np.tile(np.where(session == SESSIONS - 1, 2, 0), n_users).astype(np.uint8),
        np.tile(kinds, n_users).astype(np.uint8),
    )
    events = events.where((events.splits == 0) | (events.kinds == PURCHASE))
    return Dataset(
        events.where(np.argsort(events.timestamps, kind="stable")),
        Vocabulary([f"user-{row}" for row in range(n_users)]),
        Vocabulary([f"item-{row}" for row in range(n_items)]),
        np.array([f"Item {row}" for row in range(n_items)], dtype=object),
        FeatureTable((), np.zeros((n_users, 0), np.int32)),
        FeatureTable((), np.zeros((n_items, 0), np.int32)),
        True,
        False,
        KINDS,
    )


def blind(dataset: Dataset) -> Dataset:
    """The same events, kinds unknown."""
    return replace(dataset, events=replace(dataset.events, kinds=np.zeros_like(dataset.events.kinds)), kinds=("",))

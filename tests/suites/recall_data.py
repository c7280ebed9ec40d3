"""Synthetic events with a known right answer: users stay in their block of items and come back for more of it."""

from __future__ import annotations

import numpy as np

from core.dataset import Dataset, Events
from core.features import FeatureTable
from core.histories import SECONDS_PER_DAY
from core.vocabulary import Vocabulary

BLOCKS = 4
ITEMS_PER_BLOCK = 30
UNSEEN_ITEMS = 3
SESSION_EVENTS = 8
SESSIONS = 3


def block_dataset(
    seed: int = 0,
    n_users: int = 160,
    *,
    block_items: int = ITEMS_PER_BLOCK,
    has_times: bool = True,
    has_values: bool = True,
    sessions: int = SESSIONS,
) -> Dataset:
    """Users of ``BLOCKS`` groups; nine of ten events lie in the group's own block, popular items first.

    The last session is the test split, the others train. The catalogue ends with items that nobody touched.
    """
    rng = np.random.default_rng(seed)
    n_items = BLOCKS * block_items + UNSEEN_ITEMS
    blocks = rng.integers(BLOCKS, size=n_users)
    popularity = 1 / (np.arange(block_items) + 3.0)
    per_user = SESSION_EVENTS * sessions
    own = np.zeros((n_users, BLOCKS * block_items))
    for block in range(BLOCKS):
        share = np.where(blocks == block, 0.9, 0.1 / (BLOCKS - 1))[:, None]
        own[:, block * block_items : (block + 1) * block_items] = share * popularity / popularity.sum()
    keys = np.log(own) + rng.gumbel(size=own.shape)  # Gumbel top-k: draws without replacement
    items = np.argsort(-keys, axis=1)[:, :per_user]
    items = rng.permuted(items, axis=1)
    session = np.tile(np.repeat(np.arange(sessions), SESSION_EVENTS), n_users)
    users = np.repeat(np.arange(n_users), per_user)
    times = rng.uniform(0, 30, n_users)[users] + session * 10 + np.tile(np.arange(per_user), n_users) / 1440
    raw = rng.integers(1, 6, len(users)).astype(np.float32)
    order = np.argsort(times, kind="stable")
    splits = np.where(session == sessions - 1, 2, 0) if sessions > 1 else np.zeros(len(users))
    events = Events(
        users.astype(np.int32),
        items.ravel().astype(np.int32),
        times * SECONDS_PER_DAY if has_times else np.zeros(len(users)),
        ((raw - raw.mean()) / raw.std()) if has_values else np.zeros(len(users), np.float32),
        raw if has_values else np.full(len(users), np.nan, np.float32),
        splits.astype(np.uint8),
        np.zeros(len(users), np.uint8),
    ).where(order)
    return Dataset(
        events,
        Vocabulary([f"user-{row}" for row in range(n_users)]),
        Vocabulary([f"item-{row}" for row in range(n_items)]),
        np.array([f"Item {row}" for row in range(n_items)], dtype=object),
        FeatureTable((), np.zeros((n_users, 0), np.int32)),
        FeatureTable((), np.zeros((n_items, 0), np.int32)),
        has_times,
        has_values,
    )

"""Made data for the bench: users of two tastes, later events of the same taste."""

from __future__ import annotations

import numpy as np

from core.dataset import Dataset, Events
from core.features import FeatureTable
from core.vocabulary import Vocabulary

N_USERS, N_ITEMS = 40, 24


def two_tastes(seed: int = 0, times: bool = True) -> Dataset:
    """Even users take items of the first half, odd ones of the second; 6 train, 2 valid, 2 test events each.

    User 0 has test events only, so that one user is cold.
    """
    rng = np.random.default_rng(seed)
    users, items, splits = [], [], []
    for user in range(N_USERS):
        own = rng.permutation(N_ITEMS // 2)[:10] + (user % 2) * (N_ITEMS // 2)
        for place, item in enumerate(own):
            split = 0 if place < 6 else 1 if place < 8 else 2
            if user or split == 2:
                users.append(user)
                items.append(int(item))
                splits.append(split)
    order = np.argsort(splits, kind="stable")
    n = len(order)
    events = Events(
        np.array(users, np.int32)[order],
        np.array(items, np.int32)[order],
        np.arange(1, n + 1, dtype=np.float64) if times else np.zeros(n),
        np.zeros(n, np.float32),
        rng.integers(1, 6, n).astype(np.float32),
        np.array(splits, np.uint8)[order],
        np.zeros(n, np.uint8),
    )
    none = FeatureTable((), np.zeros((0, 0), dtype=np.int32))
    item_ids = Vocabulary([f"i,{row}" for row in range(N_ITEMS)])
    return Dataset(
        events, Vocabulary([f"u{row}" for row in range(N_USERS)]), item_ids, item_ids.ids, none, none, times, True
    )

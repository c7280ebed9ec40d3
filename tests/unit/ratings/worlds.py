"""A world of ratings with a known answer: two tastes, some items better than others, users who rate high or low."""

from __future__ import annotations

import numpy as np

from core.dataset import Dataset, Events
from core.features import FeatureColumn, FeatureTable
from core.vocabulary import Vocabulary

NOISE = 0.4
TEST = 2


def taste_world(
    *, n_users: int = 150, n_items: int = 60, per_user: int = 24, with_values: bool = True, seed: int = 0
) -> Dataset:
    """Raw values in 1..5; one event in five is of the test split, drawn at random.

    Users of group 1 and 2 like opposite halves of the catalogue; their group and the items' half are attributes.
    The last user and the last item have no events.
    """
    rng = np.random.default_rng(seed)
    group, half = 1 + np.arange(n_users) % 2, 1 + np.arange(n_items) % 2
    user_bias, item_bias = 0.5 * rng.standard_normal(n_users), 0.5 * rng.standard_normal(n_items)
    users = np.repeat(np.arange(n_users - 1), per_user)
    items = np.concatenate([rng.choice(n_items - 1, per_user, replace=False) for _ in range(n_users - 1)])
    agree = np.where(group[users] == half[items], 1.0, -1.0)
    clean = 3 + user_bias[users] + item_bias[items] + agree
    raw = np.clip(np.round(2 * (clean + NOISE * rng.standard_normal(len(users)))) / 2, 1, 5).astype(np.float32)
    splits = np.where(rng.random(len(users)) < 0.2, TEST, 0).astype(np.uint8)
    train = raw[splits == 0].astype(np.float64)
    values = ((raw - train.mean()) / train.std()).astype(np.float32)
    order = rng.permutation(len(users))
    events = Events(
        users.astype(np.int32),
        items.astype(np.int32),
        np.arange(len(users)) * 3600.0,
        values if with_values else np.zeros(len(users), np.float32),
        raw if with_values else np.full(len(users), np.nan, np.float32),
        splits,
        np.zeros(len(users), np.uint8),
    )
    shuffled = events.where(order)
    timed = Events(**(vars(shuffled) | {"timestamps": np.arange(len(users)) * 3600.0}))
    column = lambda name, codes: FeatureTable(  # noqa: E731
        (FeatureColumn(name, "category", 3, 1),), codes[:, None].astype(np.int32)
    )
    return Dataset(
        timed,
        Vocabulary([f"u{row}" for row in range(n_users)]),
        Vocabulary([f"i{row}" for row in range(n_items)]),
        np.array([f"Item {row}" for row in range(n_items)], dtype=object),
        column("group", group),
        column("half", half),
        True,
        with_values,
    )

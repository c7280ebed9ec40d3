"""Which client holds which users."""

from __future__ import annotations

import numpy as np

from core.dataset import Events


def even(n_users: int, clients: int, seed: int) -> np.ndarray:
    """Client of each user, int64 ``(U,)``: dealt at random, equally many each."""
    dealt = np.arange(n_users) % clients
    return np.random.default_rng([seed, 17]).permutation(dealt)


def skewed(events: Events, n_users: int, n_items: int, clients: int, seed: int) -> np.ndarray:
    """As :func:`even`, for clients unlike each other in size and taste.

    Users are sorted by the popularity of what they took and cut into pieces whose sizes are a Dirichlet draw with
    concentration 1: one client has lovers of the well-known, another those of the rare. Each has a user at least.
    """
    popularity = np.log1p(np.bincount(events.item_rows, minlength=n_items))
    counts = np.bincount(events.user_rows, minlength=n_users)
    taste = np.bincount(events.user_rows, popularity[events.item_rows], n_users) / np.maximum(counts, 1)
    sizes = np.random.default_rng([seed, 19]).dirichlet(np.ones(clients)) * (n_users - clients)
    ends = np.round(np.cumsum(sizes)).astype(int) + np.arange(1, clients + 1)
    found = np.empty(n_users, dtype=np.int64)
    found[np.argsort(taste, kind="stable")] = np.searchsorted(ends, np.arange(n_users), side="right")
    return found

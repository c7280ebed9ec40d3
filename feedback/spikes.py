"""Items that many new accounts push at once.

A hit spreads through users who were there before; an attack comes with accounts of its own. An item spikes when the
newest window has far more labels of it than its share before foretells, and mostly from users who were never seen
before that window.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa

WINDOW_SECONDS = 86_400.0
LEAST_LABELS = 30
"""Of an item in the window: fewer move nothing."""
SIGMAS = 6.0
"""Above the number that is foretold, in standard deviations of a Poisson count."""
NEW_USER_SHARE = 0.5
PRIOR_LABELS = 5.0
"""Every item is taken to have had as many labels before: a new item may have its first ones."""


def spiking_items(events: pa.Table, window_s: float = WINDOW_SECONDS) -> tuple[str, ...]:
    """Items that spike in the newest window, in order of their labels there.

    Args:
        events: See ``core.feedback_labels.TRAINING_EVENTS``.
        window_s: Length of the window, seconds back from the newest event.
    """
    if not len(events):
        return ()
    times = events["timestamp"].to_numpy()
    users = np.array(events["user_id"].to_pylist(), dtype=object)
    items = np.array(events["item_id"].to_pylist(), dtype=object)
    is_new = times > times.max() - window_s
    known_users = set(users[~is_new].tolist())
    before, window = Counter(items[~is_new].tolist()), Counter(items[is_new].tolist())
    by_new = Counter(item for user, item in zip(users[is_new], items[is_new], strict=True) if user not in known_users)
    total = sum(before.values()) + PRIOR_LABELS * len(set(items.tolist()))
    found = []
    for item, labels in window.most_common():
        foretold = (before[item] + PRIOR_LABELS) / total * int(is_new.sum())
        is_far = labels - foretold > SIGMAS * np.sqrt(max(foretold, 1.0))
        if labels >= LEAST_LABELS and is_far and by_new[item] > NEW_USER_SHARE * labels:
            found.append(str(item))
    return tuple(found)

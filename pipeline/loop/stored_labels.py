"""Labels from the event store, ready to train on: pseudonyms of users whom the base data knows become ids again.

Only the holder of the key can do that. Others stay pseudonyms, and the gateway asks for them by these.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa

from core.feedback_users import user_ref
from core.settings import Settings
from feedback.labels import FeedbackLabels, label
from feedback.store import store_folder
from pipeline.events import feedback_keys, open_store
from pipeline.loop.inputs import Labels, no_labels
from pipeline.loop.watch import store_facts


def stored_labels(settings: Settings, known_users: Iterable[str], fresh: bool = True) -> Labels:
    """Labels of everything that the store under ``paths.var`` holds; none where there is no store.

    Labels come from sealed segments, so that they can be made again.

    Args:
        settings: The sections ``feedback``, ``labels`` and ``paths``.
        known_users: Ids of the base data, whose pseudonyms are turned back.
        fresh: Seal everything first and write the dataset down; otherwise seal only what is due.

    Raises:
        FeedbackError: The store cannot be read now, or is damaged.
    """
    found = sealed_labels(settings, fresh)
    if found is None:
        return no_labels()
    key = feedback_keys(settings).pseudonym
    known = {user_ref(user_id, key): user_id for user_id in known_users}
    labels, table = found.labels, found.labels.events
    users = pa.array([known.get(ref, ref) for ref in table["user_id"].to_pylist()], pa.string())
    table = table.set_column(0, table.schema.field("user_id"), users)
    forgotten = frozenset(known[reference] for reference in found.forgotten if reference in known)
    return Labels(table, found.content, store_facts(labels, found.quarantined), labels.places, forgotten)


@dataclass(frozen=True)
class SealedLabels:
    """What a store gives.

    Attributes:
        labels: By pseudonym.
        content: Hash of the dataset that they come from.
        quarantined: Events in quarantine.
        forgotten: Pseudonyms of deleted users.
    """

    labels: FeedbackLabels
    content: str
    quarantined: int
    forgotten: frozenset[str]


def sealed_labels(settings: Settings, fresh: bool = True) -> SealedLabels | None:
    """Labels of what is sealed; None without a store."""
    folder = store_folder(settings.paths.var)
    if not folder.is_dir():
        return None
    with open_store(settings) as store:
        if fresh:
            store.seal()
        else:
            store.seal_if_due()
        snapshot = store.snapshot()
        quarantined, forgotten = sum(store.refused().values()), store.forgotten()
    if fresh:
        snapshot.save(folder)
    return SealedLabels(label(folder, snapshot, settings.labels), snapshot.content, quarantined, forgotten)

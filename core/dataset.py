"""The dataset artefact as arrays: what the dataset stage wrote, in the form that every other stage reads."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow.parquet as pq

from core.artifacts import Artifact
from core.codebook import NO_CODES, Codebook
from core.columns import is_mapped, read_column
from core.content import ItemContent
from core.features import FeatureTable
from core.histories import Histories
from core.vocabulary import Vocabulary

SPLITS = ("train", "valid", "test")
"""Split names; a split's code in ``Dataset.splits`` is its place here."""
EVENT_COLUMNS = {
    "user_row": "int32",
    "item_row": "int32",
    "timestamp": "float64",
    "value": "float32",
    "raw_value": "float32",
    "split": "uint8",
    "kind": "uint8",
}
"""Columns of the events on disk, in the order of the fields of :class:`Events`."""
EVENTS = "events.parquet"
"""Events of an artefact that is read into memory."""


def event_files(artifact: Artifact) -> dict[str, str]:
    """sha256 of each file that holds events, by name."""
    return {
        record.path: record.sha256
        for record in artifact.manifest.files
        if record.path == EVENTS or record.path.startswith("events/")
    }


def column_file(name: str) -> str:
    """File of a column of events in an artefact that is read memory-mapped."""
    return f"events/{name}.npy"


@dataclass(frozen=True)
class Events:
    """Cleaned events in time order, one column each, all ``(events,)``; memory-mapped where the dataset is large.

    Attributes:
        user_rows: int32.
        item_rows: int32.
        timestamps: Seconds since the epoch, float64; 0 throughout where the data has no time.
        values: Standardised value float32, 0 where unknown.
        raw_values: The value as given, float32, NaN where unknown.
        splits: uint8 codes, see ``SPLITS``.
        kinds: uint8, places in ``Dataset.kinds``; 0 where unknown.
    """

    user_rows: np.ndarray
    item_rows: np.ndarray
    timestamps: np.ndarray
    values: np.ndarray
    raw_values: np.ndarray
    splits: np.ndarray
    kinds: np.ndarray

    def __len__(self) -> int:
        return len(self.user_rows)

    def where(self, mask: np.ndarray | slice) -> Events:
        """The events that ``mask`` (bool ``(events,)``), an index or a slice selects, order kept."""
        return Events(
            self.user_rows[mask],
            self.item_rows[mask],
            self.timestamps[mask],
            self.values[mask],
            self.raw_values[mask],
            self.splits[mask],
            self.kinds[mask],
        )

    def of_splits(self, names: Iterable[str]) -> Events:
        """The events of the named splits."""
        mask = np.zeros(len(self), dtype=bool)
        for name in names:
            mask |= self.splits == SPLITS.index(name)
        if is_mapped(self.splits) and mask.any():
            start, count = int(mask.argmax()), int(np.count_nonzero(mask))
            if mask[start : start + count].all():  # splits by time lie behind each other: a view, nothing is copied
                return self.where(slice(start, start + count))
        return self.where(mask)

    @property
    def is_mapped(self) -> bool:
        """Whether the columns lie in files."""
        return is_mapped(self.user_rows)


@dataclass(frozen=True)
class Dataset:
    """Everything that training, evaluation and release need of the data.

    Attributes:
        events: All cleaned events, each (user, item) pair once.
        users: External user ids in row order.
        items: External item ids in row order, those without events included.
        titles: What people read for each item, object array ``(I,)``.
        user_features: Attribute codes ``(U, F)``.
        item_features: Attribute codes ``(I, F)``.
        has_times: False where the data came without timestamps.
        has_values: False where the data came without values (ratings).
        kinds: Names of the events' kinds by code (click, purchase, …); code 0, "", is unknown.
        user_codebook: What the codes of ``user_features`` mean.
        item_codebook: What the codes of ``item_features`` mean.
        item_content: Text and vectors of the items; None where nothing is known.
    """

    events: Events
    users: Vocabulary
    items: Vocabulary
    titles: np.ndarray
    user_features: FeatureTable
    item_features: FeatureTable
    has_times: bool
    has_values: bool
    kinds: tuple[str, ...] = ("",)
    user_codebook: Codebook = NO_CODES
    item_codebook: Codebook = NO_CODES
    item_content: ItemContent | None = None

    @property
    def n_users(self) -> int:
        return len(self.users)

    @property
    def n_items(self) -> int:
        return len(self.items)

    def histories(self, splits: Iterable[str]) -> Histories:
        """Histories of all users over the named splits, newest first."""
        return histories_of(self.events.of_splits(splits), self.n_users)


def histories_of(events: Events, n_users: int) -> Histories:
    """Groups events by user, newest first."""
    return Histories.from_events(
        events.user_rows, events.item_rows, events.timestamps, events.values, n_users, events.kinds
    )


def load_dataset(artifact: Artifact) -> Dataset:
    """Reads a dataset artefact: events.parquet or events/*.npy, users.parquet, items.parquet, item_content.parquet,
    *_features.npz, *_codes.json."""
    if artifact.has(EVENTS):
        table = pq.read_table(artifact.file(EVENTS))
        events = Events(*(table[name].to_numpy() for name in EVENT_COLUMNS))
    else:
        events = Events(*(read_column(artifact.file(column_file(name))) for name in EVENT_COLUMNS))
    users = pq.read_table(artifact.file("users.parquet"), columns=["user_id"])
    items = pq.read_table(artifact.file("items.parquet"), columns=["item_id", "title"])
    facts = artifact.manifest.tensors
    return Dataset(
        events,
        Vocabulary(users["user_id"].combine_chunks()),
        Vocabulary(items["item_id"].combine_chunks()),
        items["title"].to_numpy(zero_copy_only=False),
        FeatureTable.load(artifact.file("user_features.npz")),
        FeatureTable.load(artifact.file("item_features.npz")),
        bool(facts["has_times"]),
        bool(facts["has_values"]),
        tuple(facts["kinds"]),
        Codebook.load(artifact.file("user_codes.json")),
        Codebook.load(artifact.file("item_codes.json")),
        ItemContent.load(artifact.file("item_content.parquet")),
    )

"""What users did, newest first, as ragged arrays and as padded tensors.

Training, evaluation and serving all build model inputs here, so that they cannot differ.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

SECONDS_PER_DAY = 86_400.0
SMALLEST_BUCKET = 16
LONGEST_HISTORY = 4_096
"""Events that a model sees at most: the newest ones. Seen items are masked without any such limit."""


@dataclass(frozen=True)
class Histories:
    """The events of several users, ragged, newest first within each user.

    Attributes:
        starts: Offsets int64 ``(U + 1,)``; user ``u`` owns ``starts[u]:starts[u + 1]``.
        item_rows: Item rows int32 ``(events,)``.
        timestamps: Seconds since the epoch, float64 ``(events,)``; 0 where the data has no time.
        values: Standardised values float32 ``(events,)``; 0 where unknown.
        kinds: Codes of the events' kinds uint8 ``(events,)``, see ``core.dataset.Dataset.kinds``; 0 where unknown.
    """

    starts: np.ndarray
    item_rows: np.ndarray
    timestamps: np.ndarray
    values: np.ndarray
    kinds: np.ndarray

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Events per user, int64 ``(U,)``."""
        return np.diff(self.starts)

    @classmethod
    def from_events(
        cls,
        user_rows: np.ndarray,
        item_rows: np.ndarray,
        timestamps: np.ndarray,
        values: np.ndarray,
        n_users: int,
        kinds: np.ndarray | None = None,
    ) -> Histories:
        """Groups events by user, newest first; equal times keep the later event of the input first.

        Args:
            user_rows: int ``(events,)`` in ``0..n_users-1``.
            item_rows: int ``(events,)``.
            timestamps: seconds ``(events,)``.
            values: float ``(events,)``.
            n_users: U, users without events included.
            kinds: int ``(events,)``; all unknown when None.
        """
        order = np.lexsort((-np.arange(len(user_rows)), -timestamps, user_rows))
        starts = np.zeros(n_users + 1, dtype=np.int64)
        np.cumsum(np.bincount(user_rows, minlength=n_users), out=starts[1:])
        return cls(
            starts,
            item_rows[order].astype(np.int32),
            timestamps[order].astype(np.float64),
            values[order].astype(np.float32),
            np.zeros(len(order), np.uint8) if kinds is None else kinds[order].astype(np.uint8),
        )

    def of(self, user: int) -> UserHistory:
        """One user's events."""
        part = slice(self.starts[user], self.starts[user + 1])
        return UserHistory(self.item_rows[part], self.timestamps[part], self.values[part], self.kinds[part])

    def select(self, users: np.ndarray) -> Histories:
        """The histories of ``users`` (row numbers ``(n,)``), in that order."""
        lengths = self.lengths[users]
        starts = np.zeros(len(users) + 1, dtype=np.int64)
        np.cumsum(lengths, out=starts[1:])
        index = np.repeat(self.starts[users] - starts[:-1], lengths) + np.arange(starts[-1])
        return Histories(starts, self.item_rows[index], self.timestamps[index], self.values[index], self.kinds[index])

    def __iter__(self) -> Iterator[UserHistory]:
        return (self.of(user) for user in range(len(self)))


@dataclass(frozen=True)
class UserHistory:
    """One user's events, newest first: see :class:`Histories` for dtypes."""

    item_rows: np.ndarray
    timestamps: np.ndarray
    values: np.ndarray
    kinds: np.ndarray

    def __len__(self) -> int:
        return len(self.item_rows)


EMPTY_HISTORY = UserHistory(
    np.zeros(0, np.int32), np.zeros(0, np.float64), np.zeros(0, np.float32), np.zeros(0, np.uint8)
)


@dataclass(frozen=True)
class PaddedHistories:
    """Model inputs for a batch; see ``core.tensors`` for the meaning of each.

    Attributes:
        rows: int64 ``(B, L)``, newest first, padded with ``n_items``.
        ages: float32 ``(B, L)``, days before the user's newest event.
        values: float32 ``(B, L)``.
        kinds: int64 ``(B, L)``.
        exclude: int64 ``(B, X)``, rows that must not be recommended, padded with ``n_items``.
    """

    rows: np.ndarray
    ages: np.ndarray
    values: np.ndarray
    kinds: np.ndarray
    exclude: np.ndarray


def bucket(length: int) -> int:
    """The smallest power of two that holds ``length``, at least 16.

    Few distinct shapes let the dynamic batcher join requests and let engines keep one profile per bucket.
    """
    return max(SMALLEST_BUCKET, 1 << max(length - 1, 0).bit_length())


def pad(histories: Histories, n_items: int, extra_exclude: list[np.ndarray] | None = None) -> PaddedHistories:
    """Pads a batch of histories to one bucket.

    The newest 4,096 events enter ``rows``; every seen item enters ``exclude``, however long the history.

    Args:
        histories: B users.
        n_items: I, also the padding row.
        extra_exclude: Per user, further rows to exclude (may repeat seen ones).
    """
    lengths = histories.lengths
    count = len(lengths)
    kept = np.minimum(lengths, LONGEST_HISTORY)
    width = bucket(int(kept.max(initial=0)))
    offsets = np.arange(width)
    valid = offsets < kept[:, None]  # (B, L)
    rows = np.full((count, width), n_items, dtype=np.int64)
    ages = np.zeros((count, width), dtype=np.float32)
    values = np.zeros((count, width), dtype=np.float32)
    kinds = np.zeros((count, width), dtype=np.int64)
    source = (histories.starts[:-1, None] + offsets)[valid]
    rows[valid] = histories.item_rows[source]
    values[valid] = histories.values[source]
    kinds[valid] = histories.kinds[source]
    if len(source):
        newest = histories.timestamps[np.repeat(histories.starts[:-1], kept)]
        ages[valid] = (newest - histories.timestamps[source]) / SECONDS_PER_DAY

    extras = extra_exclude or [np.zeros(0, np.int64)] * count
    totals = lengths + np.array([len(rows_) for rows_ in extras], dtype=np.int64)
    exclude = np.full((count, bucket(int(totals.max(initial=0)))), n_items, dtype=np.int64)
    seen = np.arange(exclude.shape[1]) < lengths[:, None]
    exclude[seen] = histories.item_rows
    for user, more in enumerate(extras):
        exclude[user, lengths[user] : totals[user]] = more
    return PaddedHistories(rows, ages, values, kinds, exclude)

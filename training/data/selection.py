"""From all well-formed events to those that stay: time order, splits, each pair once, k-core."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from core.dataset import SPLITS
from core.errors import DataError
from core.sections import DataSettings
from training.data.clean import first_split_newest, k_core, split_by_time, time_boundaries
from training.data.encode import kind_strengths
from training.data.raw import RawEvents


@dataclass(frozen=True)
class Selection:
    """The events that stay.

    Attributes:
        places: Places in the raw events, int64 ``(events,)``, in time order; equal times in the source's order.
        splits: uint8 ``(events,)``, see ``core.dataset.SPLITS``.
        boundaries: Last time of train and of valid; None where the data brought its splits.
        dropped: Events dropped per reason.
    """

    places: np.ndarray
    splits: np.ndarray
    boundaries: tuple[float, float] | None
    dropped: dict[str, int]

    @property
    def is_train(self) -> np.ndarray:
        """bool ``(events,)``."""
        return self.splits == SPLITS.index("train")


def select_events(raw: RawEvents, settings: DataSettings, weights: Mapping[str, float] | None = None) -> Selection:
    """Applies the rules of ``clean``.

    Args:
        raw: Well-formed events.
        settings: The section ``data``.
        weights: ``events.kind_weights``.

    Raises:
        DataError: No event is left, or none in the train split.
        SettingsError: A weight for a kind that the data does not have.
        ValueError: Neither times nor splits; sources never give that.
    """
    places = np.arange(len(raw)) if raw.timestamps is None else np.argsort(raw.timestamps, kind="stable")
    splits, boundaries = _splits(raw, settings)
    splits = splits[places]
    pairs = raw.users.codes[places].astype(np.int64) * len(raw.items.ids) + raw.items.codes[places]
    strengths = kind_strengths(raw.kinds, weights) if weights else None
    kept = first_split_newest(pairs, splits, None if strengths is None else strengths[places])
    dropped = {"repeat of a (user, item)": len(places) - len(kept)}
    places, splits = places[kept], splits[kept]
    users, items = raw.users.codes[places], raw.items.codes[places]
    alive = k_core(users, items, settings.min_user_events, settings.min_item_events)
    dropped["outside the k-core"] = int((~alive).sum())
    if not alive.any():
        raise outside_k_core(settings, len(places))
    selection = Selection(places[alive], splits[alive], boundaries, {k: v for k, v in dropped.items() if v})
    check_train_events(np.bincount(selection.splits, minlength=len(SPLITS)))
    return selection


def outside_k_core(settings: DataSettings, count: int) -> DataError:
    """The error for data of which the k-core leaves nothing of ``count`` events."""
    return DataError(
        "no event is left",
        where="data.min_user_events, data.min_item_events",
        expected="thresholds that some users and items reach",
        found=f"all {count:,} events outside the k-core of {settings.min_user_events} events per user and "
        f"{settings.min_item_events} per item",
        next_step="lower the thresholds",
    )


def check_train_events(counts: np.ndarray) -> None:
    """Raises DataError where the train split is empty; ``counts`` are the events of each split."""
    if not counts[SPLITS.index("train")]:
        found = str(dict(zip(SPLITS, counts.tolist(), strict=True)))
        raise DataError("no event in the train split", where="split", expected="train events", found=found)


def _splits(raw: RawEvents, settings: DataSettings) -> tuple[np.ndarray, tuple[float, float] | None]:
    if raw.splits is not None:
        return raw.splits, None
    if raw.timestamps is None:
        raise ValueError("events need times or splits")
    boundaries = time_boundaries(raw.timestamps, (settings.train_until, settings.valid_until))
    return split_by_time(raw.timestamps, boundaries), boundaries

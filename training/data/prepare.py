"""Events as the artefact holds them, in memory: selected, with rows for ids and standardised values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from core.dataset import EVENTS, SPLITS
from core.sections import DataSettings
from training.data.encode import Encoding, Kinds, Standardised, encode_kinds, fit_vocabulary, standardise
from training.data.raw import RawAttributes, RawEvents
from training.data.selection import Selection, select_events


@dataclass(frozen=True)
class Prepared:
    """Events ready to be written.

    Attributes:
        users: User ids in row order.
        items: Item ids in row order.
        dropped: Events that were not selected, per reason.
        facts: What the manifest tells of the events.
        write: Writes them into the artefact's folder.
    """

    users: pa.Array
    items: pa.Array
    dropped: dict[str, int]
    facts: dict[str, Any]
    write: Callable[[Path], None]


def prepare_events(
    events: RawEvents,
    users: RawAttributes | None,
    items: RawAttributes | None,
    settings: DataSettings,
    kind_weights: Mapping[str, float],
) -> Prepared:
    """Selects and encodes events.

    Args:
        events: Well-formed ones.
        users: Attributes, whose ids get rows too.
        items: Likewise.
        settings: The section ``data``.
        kind_weights: ``events.kind_weights``.

    Raises:
        DataError: See :func:`training.data.selection.select_events`; more kinds than a byte can tell apart.
    """
    selection = select_events(events, settings, kind_weights)
    user_rows, item_rows = (
        fit_vocabulary(column, column.codes[selection.places], selection.is_train, attributes)
        for column, attributes in ((events.users, users), (events.items, items))
    )
    raw_values = _raw_values(events, selection)
    values = standardise(raw_values, selection.is_train)
    kinds = encode_kinds(events.kinds, selection.places)
    facts = facts_of(
        users=len(user_rows.ids),
        items=len(item_rows.ids),
        split_counts=np.bincount(selection.splits, minlength=len(SPLITS)),
        boundaries=selection.boundaries,
        has_times=events.timestamps is not None,
        has_values=bool(np.isfinite(raw_values).any()),
        value_mean=values.mean,
        value_std=values.std,
        kinds=kinds.names,
    )
    write = lambda folder: pq.write_table(  # noqa: E731
        _table(events, selection, user_rows, item_rows, values, raw_values, kinds),
        folder / EVENTS,
        compression="zstd",
    )
    return Prepared(user_rows.ids, item_rows.ids, selection.dropped, facts, write)


def facts_of(
    *,
    users: int,
    items: int,
    split_counts: np.ndarray,
    boundaries: tuple[float, float] | None,
    has_times: bool,
    has_values: bool,
    value_mean: float,
    value_std: float,
    kinds: tuple[str, ...],
) -> dict[str, Any]:
    """What the manifest tells of the events, as plain JSON values."""
    return {
        "n_users": users,
        "n_items": items,
        "n_events": int(split_counts.sum()),
        "has_times": has_times,
        "has_values": has_values,
        "value_mean": value_mean,
        "value_std": value_std,
        "kinds": kinds,
        "split_counts": dict(zip(SPLITS, split_counts.tolist(), strict=True)),
        "time_boundaries": None if boundaries is None else {"train": boundaries[0], "valid": boundaries[1]},
    }


def _raw_values(events: RawEvents, selection: Selection) -> np.ndarray:
    if events.values is None:
        return np.full(len(selection.places), np.nan, dtype=np.float32)
    return events.values[selection.places]


def _table(
    events: RawEvents,
    selection: Selection,
    users: Encoding,
    items: Encoding,
    values: Standardised,
    raw_values: np.ndarray,
    kinds: Kinds,
) -> pa.Table:
    places = selection.places
    times = np.zeros(len(places)) if events.timestamps is None else events.timestamps[places]
    columns: dict[str, Any] = {
        "user_row": users.row_of_code[events.users.codes[places]],
        "item_row": items.row_of_code[events.items.codes[places]],
        "timestamp": times,
        "value": values.values,
        "raw_value": raw_values,
        "split": selection.splits,
        "kind": kinds.codes,
    }
    return pa.table(columns)

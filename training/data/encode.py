"""External ids become rows, values become standardised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from core.errors import DataError
from core.kinds import kind_weights
from training.data.raw import IdColumn, RawAttributes

MOST_KINDS = 256
"""Kinds of events are stored in a byte; code 0 is unknown."""


@dataclass(frozen=True)
class Encoding:
    """The vocabulary of users or items.

    Attributes:
        ids: Text in row order.
        row_of_code: int32, the row of each code of the raw column; -1 where the code has none.
    """

    ids: pa.Array
    row_of_code: np.ndarray


def fit_vocabulary(
    column: IdColumn, codes: np.ndarray, is_train: np.ndarray, attributes: RawAttributes | None
) -> Encoding:
    """Rows for every id that has an event or attributes, cold ones included.

    Rows descend by the number of train events, ties ascend by id, so that equal scores, which go to the lower row,
    go to the more popular item.

    Args:
        column: The raw column; ``column.ids`` gives each code its text.
        codes: Codes of the events that are kept ``(events,)``.
        is_train: bool ``(events,)``.
        attributes: Table whose ids belong to the vocabulary, events or not.
    """
    size = len(column.ids)
    counts, train_counts = np.bincount(codes, minlength=size), np.bincount(codes[is_train], minlength=size)
    return order_vocabulary(column.ids, counts, train_counts, attributes)


def order_vocabulary(
    ids: pa.Array, counts: np.ndarray, train_counts: np.ndarray, attributes: RawAttributes | None
) -> Encoding:
    """The same from how often each code occurs, in all events that are kept and in those of train, int ``(codes,)``."""
    size = len(ids)
    used = np.flatnonzero(counts)
    weights = train_counts[used]
    ids = ids.take(pa.array(used))
    if attributes is not None:
        cold = attributes.ids.filter(pc.invert(pc.is_in(attributes.ids, value_set=ids)))
        ids = pa.concat_arrays([ids, cold])
        used = np.append(used, np.full(len(cold), -1))
        weights = np.append(weights, np.zeros(len(cold), dtype=weights.dtype))
    order = pc.sort_indices(
        pa.table({"count": weights, "id": ids}), sort_keys=[("count", "descending"), ("id", "ascending")]
    ).to_numpy()
    row_of_code = np.full(size, -1, dtype=np.int32)
    ordered = used[order]
    row_of_code[ordered[ordered >= 0]] = np.flatnonzero(ordered >= 0)
    return Encoding(ids.take(pa.array(order)), row_of_code)


@dataclass(frozen=True)
class Kinds:
    """The kinds of the events that are kept.

    Attributes:
        names: By code; code 0, "", is unknown. The others are sorted.
        codes: uint8 ``(events,)``.
    """

    names: tuple[str, ...]
    codes: np.ndarray


def kind_strengths(kinds: pa.DictionaryArray | None, weights: Mapping[str, float]) -> np.ndarray | None:
    """Weight of each event by its kind, float64 ``(events,)``; None where the data has no kinds.

    Raises:
        SettingsError: A weight for a kind that the data does not have.
    """
    texts = [] if kinds is None else [(text or "").strip() for text in kinds.dictionary.to_pylist()]
    table = kind_weights(("", *texts), weights)
    if kinds is None:
        return None
    codes = pc.fill_null(kinds.indices.cast(pa.int64()), -1).to_numpy(zero_copy_only=False)
    strengths: np.ndarray = table[codes + 1]
    return strengths


def encode_kinds(kinds: pa.DictionaryArray | None, places: np.ndarray) -> Kinds:
    """Codes of the ``event`` column at ``places``; blank and missing names are unknown.

    Raises:
        DataError: More than 255 kinds: then the column holds something else.
    """
    if kinds is None:
        return Kinds(("",), np.zeros(len(places), dtype=np.uint8))
    texts = [(text or "").strip() for text in kinds.dictionary.to_pylist()]
    indices = pc.fill_null(kinds.indices.take(pa.array(places)).cast(pa.int64()), len(texts)).to_numpy()
    names, table = name_kinds([*texts, ""], np.unique(indices))
    return Kinds(names, table[indices])


def name_kinds(texts: Sequence[str], used: np.ndarray) -> tuple[tuple[str, ...], np.ndarray]:
    """Names of the kinds that are used, and the code of each text, uint8 ``(texts,)``.

    Args:
        texts: Names as given, stripped; some may repeat, "" is unknown.
        used: Places in ``texts`` that occur.

    Raises:
        DataError: More than 255 kinds: then the column holds something else.
    """
    names = ("", *sorted({texts[place] for place in used} - {""}))
    if len(names) > MOST_KINDS:
        raise DataError(
            "too many kinds of events",
            where="column event",
            expected=f"at most {MOST_KINDS - 1} names such as click or purchase",
            found=f"{len(names) - 1:,}",
        )
    code_of = {name: code for code, name in enumerate(names)}
    return names, np.array([code_of.get(text, 0) for text in texts], dtype=np.uint8)


@dataclass(frozen=True)
class Standardised:
    """Values with mean 0 and standard deviation 1 in the train split.

    Attributes:
        values: float32 ``(events,)``, 0 where unknown.
        mean: Mean of the known train values; 0 when there is none.
        std: Their standard deviation (population); 0 when they are all equal, and then all values are 0.
    """

    values: np.ndarray
    mean: float
    std: float


def standardise(raw_values: np.ndarray, is_train: np.ndarray) -> Standardised:
    """Standardises values by the train split alone.

    Args:
        raw_values: float32 ``(events,)``, NaN where unknown.
        is_train: bool ``(events,)``.
    """
    known = np.isfinite(raw_values)
    train = raw_values[is_train & known].astype(np.float64)
    mean, std = (float(train.mean()), float(train.std())) if len(train) else (0.0, 0.0)
    return Standardised(scale_values(raw_values, mean, std), mean, std)


def scale_values(raw_values: np.ndarray, mean: float, std: float) -> np.ndarray:
    """Values float32 ``(events,)`` in standard deviations from the mean; 0 if unknown (NaN) or ``std`` is."""
    if std == 0.0:
        return np.zeros(len(raw_values), dtype=np.float32)
    scaled = (raw_values - mean) / std
    return np.where(np.isfinite(raw_values), scaled, 0.0).astype(np.float32)

"""The dataset stage: read, check, clean, split, encode, write."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from core.artifacts import Artifact, create_artifact, write_json
from core.content import ItemContent
from core.dataset import SPLITS
from core.errors import SettingsError
from core.progress import SILENT, Progress
from core.sections import FeatureSettings
from core.settings import Settings
from training.data.codes import Fitted, fit_features
from training.data.dense import dense_columns, read_content
from training.data.derive import derive_columns
from training.data.encode import Encoding, Kinds, Standardised, encode_kinds, fit_vocabulary, standardise
from training.data.raw import RawAttributes, RawData
from training.data.report import first_bad_rows, report_of, summary_line
from training.data.selection import Selection, select_events
from training.data.sources import read_source


def build_dataset(
    settings: Settings, progress: Progress = SILENT, now: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> Artifact:
    """Builds the dataset artefact that :func:`core.dataset.load_dataset` reads.

    Args:
        settings: Sections [data], [events] and [paths].
        progress: Gets one summary line.
        now: Clock; much later events are refused.

    Raises:
        SettingsError: Unknown source, or settings that contradict each other.
        DataError: The data cannot be used; the message names file, line and column.
    """
    started = time.perf_counter()
    data = settings.data
    if data.train_until >= data.valid_until:
        raise SettingsError(
            "train has to end before valid",
            where="data.train_until, data.valid_until",
            expected="train_until < valid_until",
            found=f"{data.train_until} and {data.valid_until}",
        )
    raw = read_source(data, settings.paths.var, now(), progress)
    selection = select_events(raw.events, data, settings.events.kind_weights)
    columns = (raw.events.users, raw.events.items)
    users, items = (
        fit_vocabulary(column, column.codes[selection.places], selection.is_train, attributes)
        for column, attributes in zip(columns, (raw.users, raw.items), strict=True)
    )
    values = standardise(_raw_values(raw, selection), selection.is_train)
    kinds = encode_kinds(raw.events.kinds, selection.places)
    with create_artifact(settings.paths.var, "dataset", settings=_sections(settings), seed=data.seed) as draft:
        pq.write_table(
            _events_table(raw, selection, users, items, values, kinds),
            draft.path / "events.parquet",
            compression="zstd",
        )
        user_features = _write_side(draft.path, "user", users, raw.users, (), settings.features)
        item_features = _write_side(draft.path, "item", items, raw.items, (data.title_column,), settings.features)
        _write_content(draft.path, items, raw, data.text_columns or (data.title_column,))
        draft.tensors.update(_facts(raw, selection, users, items, values, kinds))
        report = report_of(data.source, raw, selection, draft.tensors, user_features, item_features)
        draft.metrics.update(report)
        write_json(draft.path / "report.json", report)
    artifact = draft.finished()
    for line in first_bad_rows(report):
        progress.say(line)
    progress.say(summary_line(report, artifact.path, time.perf_counter() - started))
    return artifact


def _sections(settings: Settings) -> dict[str, Any]:
    return {
        name: section
        for name, section in settings.model_dump(mode="json").items()
        if name in ("data", "events", "features")
    }


def _raw_values(raw: RawData, selection: Selection) -> np.ndarray:
    if raw.events.values is None:
        return np.full(len(selection.places), np.nan, dtype=np.float32)
    return raw.events.values[selection.places]


def _events_table(
    raw: RawData, selection: Selection, users: Encoding, items: Encoding, values: Standardised, kinds: Kinds
) -> pa.Table:
    places, events = selection.places, raw.events
    times = np.zeros(len(places)) if events.timestamps is None else events.timestamps[places]
    columns: dict[str, Any] = {
        "user_row": users.row_of_code[events.users.codes[places]],
        "item_row": items.row_of_code[events.items.codes[places]],
        "timestamp": times,
        "value": values.values,
        "raw_value": _raw_values(raw, selection),
        "split": selection.splits,
        "kind": kinds.codes,
    }
    return pa.table(columns)


def _write_side(
    folder: Path,
    noun: Literal["user", "item"],
    encoding: Encoding,
    attributes: RawAttributes | None,
    titles: tuple[str, ...],
    features: FeatureSettings,
) -> Fitted:
    """Writes <noun>s.parquet and <noun>_features.npz."""
    ids = encoding.ids
    given = pa.table({}) if attributes is None else attributes.columns
    rows = np.zeros(0, dtype=np.int64)
    table = pa.table({f"{noun}_id": ids})
    if attributes is not None:
        rows = pc.index_in(attributes.ids, value_set=ids).to_numpy()
        shown = given.drop_columns(list(dense_columns(given)))  # vectors are in item_content.parquet
        beside = shown.take(pc.index_in(ids, value_set=attributes.ids))  # null where an id has no attributes
        table = pa.table({f"{noun}_id": ids, **{name: beside[name] for name in beside.column_names}})
    if noun == "item":
        title = pc.fill_null(_known_text(table, titles), ids)
        kept = [name for name in table.column_names if name not in (*titles, "title")]
        table = table.select(kept).add_column(1, "title", title)
    derived = derive_columns(given, features, noun, titles)
    fitted = fit_features(derived.columns, rows, len(ids), derived.leave, derived.categories)
    pq.write_table(table, folder / f"{noun}s.parquet", compression="zstd")
    fitted.table.save(folder / f"{noun}_features.npz")
    fitted.codebook.save(folder / f"{noun}_codes.json")
    return fitted


def _write_content(folder: Path, items: Encoding, raw: RawData, texts: tuple[str, ...]) -> None:
    """Writes item_content.parquet: text and vectors of all items."""
    content = ItemContent.none(len(items.ids))
    if raw.items is not None:
        rows = pc.index_in(raw.items.ids, value_set=items.ids).to_numpy()
        content = read_content(raw.items.columns, rows, len(items.ids), texts, raw.reports["items"].name)
    content.save(folder / "item_content.parquet")


def _known_text(table: pa.Table, titles: tuple[str, ...]) -> pa.ChunkedArray:
    """The title column as text with null for blanks; all null where the table has none."""
    found = next((name for name in titles if name in table.column_names), None)
    if found is None:
        return pa.chunked_array([pa.nulls(len(table), pa.string())])
    text = table[found].cast(pa.string())
    return pc.if_else(pc.equal(pc.utf8_trim_whitespace(text), ""), pa.scalar(None, pa.string()), text)


def _facts(
    raw: RawData, selection: Selection, users: Encoding, items: Encoding, values: Standardised, kinds: Kinds
) -> dict[str, Any]:
    counts = np.bincount(selection.splits, minlength=len(SPLITS)).tolist()
    known = np.isfinite(_raw_values(raw, selection))
    ends = selection.boundaries
    return {
        "n_users": len(users.ids),
        "n_items": len(items.ids),
        "n_events": len(selection.places),
        "has_times": raw.events.timestamps is not None,
        "has_values": bool(known.any()),
        "value_mean": values.mean,
        "value_std": values.std,
        "kinds": kinds.names,
        "split_counts": dict(zip(SPLITS, counts, strict=True)),
        "time_boundaries": None if ends is None else {"train": ends[0], "valid": ends[1]},
    }

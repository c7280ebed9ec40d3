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
from core.errors import SettingsError
from core.progress import SILENT, Progress
from core.sections import FeatureSettings
from core.settings import Settings
from core.spill import spill_folder
from training.data.codes import Fitted, fit_features
from training.data.dense import dense_columns, read_content
from training.data.derive import derive_columns
from training.data.gather import Gathered
from training.data.large import prepare_large
from training.data.prepare import prepare_events
from training.data.raw import RawAttributes
from training.data.report import first_bad_rows, report_of, summary_line
from training.data.sources import Source, read_source


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
    with spill_folder(settings.paths.var) as folder:
        raw = read_source(data, settings.paths.var, now(), progress, folder)
        attributes, weights = (raw.users, raw.items), settings.events.kind_weights
        if isinstance(raw.events, Gathered):
            prepared = prepare_large(raw.events, *attributes, data, weights, folder)
        else:
            prepared = prepare_events(raw.events, *attributes, data, weights)
        with create_artifact(settings.paths.var, "dataset", settings=_sections(settings), seed=data.seed) as draft:
            prepared.write(draft.path)
            user_features = _write_side(draft.path, "user", prepared.users, raw.users, (), settings.features)
            titles = (data.title_column,)
            item_features = _write_side(draft.path, "item", prepared.items, raw.items, titles, settings.features)
            _write_content(draft.path, prepared.items, raw, data.text_columns or titles)
            draft.tensors.update(prepared.facts)
            report = report_of(data.source, raw, prepared.dropped, draft.tensors, user_features, item_features)
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


def _write_side(
    folder: Path,
    noun: Literal["user", "item"],
    ids: pa.Array,
    attributes: RawAttributes | None,
    titles: tuple[str, ...],
    features: FeatureSettings,
) -> Fitted:
    """Writes <noun>s.parquet and <noun>_features.npz."""
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


def _write_content(folder: Path, ids: pa.Array, raw: Source, texts: tuple[str, ...]) -> None:
    """Writes item_content.parquet: text and vectors of all items."""
    content = ItemContent.none(len(ids))
    if raw.items is not None:
        rows = pc.index_in(raw.items.ids, value_set=ids).to_numpy()
        content = read_content(raw.items.columns, rows, len(ids), texts, raw.reports["items"].name)
    content.save(folder / "item_content.parquet")


def _known_text(table: pa.Table, titles: tuple[str, ...]) -> pa.ChunkedArray:
    """The title column as text with null for blanks; all null where the table has none."""
    found = next((name for name in titles if name in table.column_names), None)
    if found is None:
        return pa.chunked_array([pa.nulls(len(table), pa.string())])
    text = table[found].cast(pa.string())
    return pc.if_else(pc.equal(pc.utf8_trim_whitespace(text), ""), pa.scalar(None, pa.string()), text)

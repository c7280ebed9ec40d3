"""Events larger than memory: checked part by part, then sorted by time by DuckDB, which spills what does not fit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from core.columns import ColumnWriter, read_column
from training.data.events import (
    EVENT_COLUMNS,
    TEXT_COLUMNS,
    check_events,
    report_events,
    require_event_columns,
)
from training.data.raw import IdColumn, RawEvents, TableReport
from training.data.reading import TableParts, read_parts
from training.data.rows import Account

SORTED_ROWS = 1 << 20
"""Rows that DuckDB hands over at a time."""
TYPES = {"user": "int32", "item": "int32", "time": "float64", "value": "float32", "split": "uint8", "kind": "int32"}


@dataclass(frozen=True)
class Gathered:
    """All well-formed events in time order, equal times in the source's order; columns are memory-mapped.

    Attributes:
        users: Codes int32 ``(events,)``, places in ``user_ids``.
        items: Likewise.
        timestamps: float64 ``(events,)``; None where the data has no time.
        values: float32 ``(events,)``, NaN where unknown; None where the data has none.
        splits: uint8 ``(events,)``; None where time decides.
        kinds: int32 ``(events,)``, places in ``kind_texts``; None where the data has none.
        user_ids: Text, each id once.
        item_ids: Likewise.
        kind_texts: Names of kinds, stripped, each once.
        report: What reading found.
    """

    users: np.ndarray
    items: np.ndarray
    timestamps: np.ndarray | None
    values: np.ndarray | None
    splits: np.ndarray | None
    kinds: np.ndarray | None
    user_ids: pa.Array
    item_ids: pa.Array
    kind_texts: tuple[str, ...]
    report: TableReport

    def __len__(self) -> int:
        return len(self.users)


class _Texts:
    """Distinct texts, numbered as they come."""

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}

    def codes_of(self, texts: list[str]) -> np.ndarray:
        """int32 ``(n,)``."""
        codes = self._codes
        return np.fromiter((codes.setdefault(text, len(codes)) for text in texts), dtype=np.int32, count=len(texts))

    def all(self) -> list[str]:
        """By code."""
        return list(self._codes)


def gather_events(
    path: Path, folder: Path, *, now: datetime, max_bad_share: float, memory_mb: int, threads: int
) -> Gathered:
    """Reads, checks and sorts events; memory holds a part at a time and each distinct id once.

    Args:
        path: A file, or a folder of Parquet files.
        folder: Takes the columns, and what DuckDB spills.
        now: See :func:`training.data.events.parse_events`.
        max_bad_share: Likewise.
        memory_mb: What DuckDB may hold of the sort.
        threads: Of the sort; 0 takes all cores.

    Raises:
        DataError: As :func:`training.data.events.parse_events`.
    """
    table = read_parts(path, EVENT_COLUMNS, TEXT_COLUMNS)
    require_event_columns(table.name, table.columns)
    names = _columns(table)
    coding = _Coding(table, now)
    schema = pa.schema([("place", pa.int64()), *((name, pa.type_for_alias(TYPES[name])) for name in names)])
    sorted_batches = (
        _sorted(coding.batches(schema), schema, folder, memory_mb, threads)
        if "time" in names
        else coding.batches(schema)
    )
    with ExitStack() as stack:
        writers = {
            name: stack.enter_context(closing(ColumnWriter(folder / f"{name}.npy", TYPES[name]))) for name in names
        }
        for batch in _with_errors(sorted_batches, coding):
            for name, writer in writers.items():
                writer.append(batch.column(name).to_numpy())
    report = report_events(table.name, table.columns, coding.account, max_bad_share)
    column = lambda name: read_column(folder / f"{name}.npy") if name in names else None  # noqa: E731
    return Gathered(
        read_column(folder / "user.npy"), read_column(folder / "item.npy"),
        column("time"), column("value"), column("split"), column("kind"),
        pa.array(coding.users.all(), pa.string()), pa.array(coding.items.all(), pa.string()),
        tuple(coding.kinds.all()), report,
    )  # fmt: skip


def _columns(table: TableParts) -> list[str]:
    ours = {"timestamp": "time", "value": "value", "split": "split", "event": "kind"}
    return ["user", "item", *(ours[name] for name in ours if name in table.columns)]


class _Coding:
    """Turns a table's parts into batches of numbers."""

    def __init__(self, table: TableParts, now: datetime) -> None:
        self.users, self.items, self.kinds = _Texts(), _Texts(), _Texts()
        self.account = Account()
        self.error: Exception | None = None
        self._table, self._now = table, now

    def batches(self, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        """Keeps an error too: DuckDB, through which batches pass, would turn it into one of its own."""
        place = 0
        try:
            for part in self._table.parts:
                events = check_events(part, self._now, self.account)
                columns = self._coded(events, place)
                yield pa.record_batch([columns[name] for name in schema.names], schema=schema)
                place += len(events)
        except Exception as error:
            self.error = error
            raise

    def _coded(self, events: RawEvents, place: int) -> dict[str, np.ndarray | None]:
        kinds = None
        if events.kinds is not None:
            texts = [(text or "").strip() for text in events.kinds.dictionary.to_pylist()]
            indices = events.kinds.indices.fill_null(len(texts)).to_numpy()
            kinds = self.kinds.codes_of([*texts, ""])[indices]
        return {
            "place": np.arange(place, place + len(events)),
            "user": _recoded(self.users, events.users),
            "item": _recoded(self.items, events.items),
            "time": events.timestamps,
            "value": events.values,
            "split": events.splits,
            "kind": kinds,
        }


def _recoded(texts: _Texts, column: IdColumn) -> np.ndarray:
    codes: np.ndarray = texts.codes_of(column.ids.to_pylist())[column.codes]
    return codes


def _sorted(
    batches: Iterator[pa.RecordBatch], schema: pa.Schema, folder: Path, memory_mb: int, threads: int
) -> Iterator[pa.RecordBatch]:
    """The same rows by time; places keep equal times in the source's order."""
    config: dict[str, Any] = {"memory_limit": f"{memory_mb}MB", "temp_directory": str(folder / "duckdb")}
    if threads:
        config["threads"] = threads
    names = ", ".join(f'"{name}"' for name in schema.names if name != "place")
    with duckdb.connect(config=config) as connection:
        connection.register("events", pa.RecordBatchReader.from_batches(schema, batches))
        yield from connection.sql(f"select {names} from events order by time, place").to_arrow_reader(SORTED_ROWS)


def _with_errors(batches: Iterator[pa.RecordBatch], coding: _Coding) -> Iterator[pa.RecordBatch]:
    try:
        yield from batches
    except Exception:
        if coding.error is not None:
            raise coding.error from None
        raise

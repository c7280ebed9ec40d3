"""From base data and feedback labels to one table of events, named by the hash of what went in."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from core.artifacts import Artifact
from core.dataset import load_dataset
from core.feedback_labels import SHOWN_PLACES, TRAINING_EVENTS
from core.settings import Settings, change_settings
from pipeline.gate.data_quality import DataFacts

NO_MANIFEST = "none"


@dataclass(frozen=True)
class Labels:
    """What users did since the base data was taken.

    Attributes:
        table: See ``core.feedback_labels.TRAINING_EVENTS``.
        manifest: Hash of the dataset of feedback that it was read from.
        facts: What the store counted beside the labels.
        places: What was shown, see ``core.feedback_labels.SHOWN_PLACES``.
        forgotten: Users of the base data who asked to be deleted.
    """

    table: pa.Table
    manifest: str = NO_MANIFEST
    facts: DataFacts = field(default_factory=lambda: DataFacts(0))
    places: pa.Table = field(default_factory=SHOWN_PLACES.empty_table)
    forgotten: frozenset[str] = frozenset()

    def __len__(self) -> int:
        return len(self.table)


def no_labels() -> Labels:
    """Nothing yet."""
    return Labels(TRAINING_EVENTS.empty_table())


def prepare_data(settings: Settings, base: Artifact, labels: Labels) -> Settings:
    """Writes base events and labels as one table; gives back settings whose data it is.

    The order is by time, then by ids: shuffled or repeated labels give the same bytes. Attributes stay those of the
    base data. Nothing that the base data holds of a forgotten user goes on, event or attribute; what they did since
    does.

    Args:
        settings: Of the loop.
        base: The dataset artefact that the first release was made from.
        labels: Later events.
    """
    gone = sorted(labels.forgotten)
    parts = (base.manifest.digest(), labels.manifest, _digest(labels.table), *([repr(gone)] if gone else []))
    identity = hashlib.sha256(" ".join(parts).encode())
    folder = settings.paths.var / "loop" / "data" / identity.hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "events.parquet"
    kept = _without(_base_events(base), gone)
    table = pa.concat_tables([kept, labels.table.select(TRAINING_EVENTS.names).cast(TRAINING_EVENTS)])
    order = [(name, "ascending") for name in ("timestamp", "user_id", "item_id", "event")]
    table = table.sort_by(order).group_by(table.column_names, use_threads=False).aggregate([])
    if not any(table["event"].to_pylist()):
        table = table.drop_columns(["event"])
    temporary = file.with_suffix(".tmp")
    pq.write_table(table.sort_by(order[: 3 if "event" not in table.column_names else 4]), temporary)
    temporary.rename(file)
    users = base.file("users.parquet")
    if gone:
        users = folder / "users.parquet"
        pq.write_table(_without(pq.read_table(base.file("users.parquet")), gone), users)
    sides = {"data.users": users, "data.items": base.file("items.parquet")}
    return change_settings(settings, {"data.source": "files", "data.events": file, **sides})


def _without(table: pa.Table, gone: list[str]) -> pa.Table:
    return table.filter(pc.invert(pc.is_in(table["user_id"], pa.array(gone, pa.string())))) if gone else table


def _base_events(base: Artifact) -> pa.Table:
    dataset = load_dataset(base)
    events = dataset.events
    values = pa.array(events.raw_values.astype(np.float32), from_pandas=True)  # NaN becomes null
    names = pa.array(list(dataset.kinds))
    return pa.table(
        {
            "user_id": pa.array(dataset.users.ids[events.user_rows], pa.string()),
            "item_id": pa.array(dataset.items.ids[events.item_rows], pa.string()),
            "timestamp": events.timestamps.astype(np.float64),
            "value": values,
            "event": names.take(pa.array(events.kinds)),
        },
        schema=TRAINING_EVENTS,
    )


def _digest(table: pa.Table) -> str:
    """Of the rows as a set: neither order nor repetition changes it."""
    columns = [pc.fill_null(table[name].cast(pa.string()), "") for name in TRAINING_EVENTS.names]
    rows = sorted(set(zip(*(column.to_pylist() for column in columns), strict=True)))
    return hashlib.sha256(repr(rows).encode()).hexdigest()

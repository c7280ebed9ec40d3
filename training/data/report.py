"""What the dataset stage tells: report.json, the manifest's metrics, the summary line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from training.data.codes import Fitted
from training.data.raw import TableReport
from training.data.sources import Source


def report_of(
    source: str, raw: Source, dropped: dict[str, int], facts: dict[str, Any], users: Fitted, items: Fitted
) -> dict[str, Any]:
    """Everything that was read, dropped, ignored and learned, as plain JSON values."""
    tables = {kind: _table(table) for kind, table in raw.reports.items()}
    tables["events"]["dropped"].update(dropped)
    return {
        "source": source,
        "fetched_sha256": raw.fingerprints,
        "kept": {"events": facts["n_events"], "users": facts["n_users"], "items": facts["n_items"]},
        "split_counts": facts["split_counts"],
        "tables": tables,
        "features": {"users": _features(users), "items": _features(items)},
    }


def summary_line(report: dict[str, Any], path: Path, seconds: float) -> str:
    """One line: read, kept, dropped, split, where, how long."""
    events, kept = report["tables"]["events"], report["kept"]
    dropped = ", ".join(f"{count:,} {reason}" for reason, count in events["dropped"].items())
    splits = ", ".join(f"{name} {count:,}" for name, count in report["split_counts"].items())
    return (
        f"dataset: {report['source']}, {kept['events']:,} of {events['rows_read']:,} events"
        f"{f' (dropped: {dropped})' if dropped else ''}, {kept['users']:,} users, {kept['items']:,} items, "
        f"{splits}, {seconds:.1f} s, wrote {path}"
    )


def first_bad_rows(report: dict[str, Any]) -> list[str]:
    """For each table with dropped bad rows the first of them: file, line, column, expected, found."""
    return [f"dropped: {table['first_bad_row']}" for table in report["tables"].values() if table["first_bad_row"]]


def _table(report: TableReport) -> dict[str, Any]:
    return {
        "name": report.name,
        "rows_read": report.rows_read,
        "dropped": dict(report.dropped),
        "first_bad_row": report.first_bad_row,
        "ignored_columns": list(report.ignored_columns),
    }


def _features(fitted: Fitted) -> dict[str, Any]:
    columns = [
        {"name": column.name, "kind": column.kind, "cardinality": column.cardinality, "width": column.width}
        for column in fitted.table.columns
    ]
    return {"columns": columns, "skipped": fitted.skipped}

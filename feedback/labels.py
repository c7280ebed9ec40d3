"""From a dataset of feedback to labels: which shown items were answered, and which answers are worth learning from.

One SQL program over the sealed segments (DuckDB: joins that do not fit into memory go to disk). An answer counts when
it names a request, its user and an item of that request's slate, within the window of its kind, and was not taken
back. Users look at a slate from the top: whatever lies above the last answered place was examined (the cascade model,
Craswell et al. 2008), of what lies below nobody knows. Everything is decided by the times and ids of events, never by
their order of arrival.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa

from core.errors import FeedbackError
from core.feedback_labels import SHOWN_PLACES, TRAINING_EVENTS
from core.sections import LabelSettings
from feedback.snapshot import Snapshot

QUERY_FOLDER = Path(__file__).parent / "sql"
IMPRESSION = (
    '{"request_id":"VARCHAR","event_time_ms":"BIGINT","release":"VARCHAR","arm":"VARCHAR","experiment":"VARCHAR",'
    '"degraded":"VARCHAR","slate":[{"position":"SMALLINT","item":"VARCHAR","score":"DOUBLE","propensity":"DOUBLE",'
    '"source":"VARCHAR"}]}'
)
FEEDBACK = (
    '{"type":"VARCHAR","item":"VARCHAR","request_id":"VARCHAR","event_time_ms":"BIGINT","value":"FLOAT",'
    '"dwell_ms":"BIGINT","corrects":"VARCHAR"}'
)


@dataclass(frozen=True)
class AnswerCounts:
    """What became of the feedback of a dataset, in events.

    Attributes:
        counted: Answers within their window.
        late: After it, or before the impression.
        not_shown: About an item that the slate did not hold.
        taken_back: By a correction.
        labels: Of the counted ones, those to learn from.
        over_cap: Left out because their user had enough labels that day.
    """

    counted: int
    late: int
    not_shown: int
    taken_back: int
    labels: int
    over_cap: int


@dataclass(frozen=True)
class FeedbackLabels:
    """Both tables and their account.

    Attributes:
        events: See ``core.feedback_labels.TRAINING_EVENTS``; users by pseudonym.
        places: See ``core.feedback_labels.SHOWN_PLACES``.
        counts: What became of the feedback.
    """

    events: pa.Table
    places: pa.Table
    counts: AnswerCounts


def label(folder: Path, snapshot: Snapshot, settings: LabelSettings) -> FeedbackLabels:
    """Labels of a dataset.

    Args:
        folder: Of the store.
        snapshot: The dataset; its segments are checked first.
        settings: Windows and caps.

    Raises:
        FeedbackError: A segment is missing or damaged.
    """
    files = [str(path) for path in snapshot.files(folder)]
    if not files:
        empty = AnswerCounts(0, 0, 0, 0, 0, 0)
        return FeedbackLabels(TRAINING_EVENTS.empty_table(), SHOWN_PLACES.empty_table(), empty)
    try:
        with duckdb.connect() as database:
            database.from_parquet(files).create_view("log")
            judge_answers(database, settings)
            events = ask(database, "events.sql").to_arrow_table()
            closed = {"click_ms": _windows(settings)["click_ms"], "watermark_ms": snapshot.watermark_ms}
            places = ask(database, "places.sql", closed).to_arrow_table()
            (counts,) = ask(database, "counts.sql").fetchall()
    except duckdb.Error as error:
        raise FeedbackError("labels cannot be made", where=str(folder), found=str(error)) from None
    return FeedbackLabels(events.cast(TRAINING_EVENTS), places.cast(SHOWN_PLACES), AnswerCounts(*counts))


def judge_answers(database: duckdb.DuckDBPyConnection, settings: LabelSettings) -> None:
    """Makes the tables ``places`` and ``answers`` from ``log``, which holds rows of segments."""
    values = {"impression": IMPRESSION, "feedback": FEEDBACK, **_windows(settings)}
    for statement in database.extract_statements((QUERY_FOLDER / "answers.sql").read_text(encoding="utf-8")):
        database.execute(statement, {name: values[name] for name in statement.named_parameters})


def _windows(settings: LabelSettings) -> dict[str, int]:
    return {
        "click_ms": round(settings.click_window_minutes * 60_000),
        "dwell_window_ms": round(settings.dwell_window_minutes * 60_000),
        "purchase_ms": round(settings.purchase_window_minutes * 60_000),
        "clock_error_ms": round(settings.clock_error_seconds * 1_000),
        "dwell_ms": round(settings.dwell_seconds * 1_000),
        "cap": settings.user_labels_per_day,
    }


def ask(
    database: duckdb.DuckDBPyConnection, name: str, values: Mapping[str, str | int] | None = None
) -> duckdb.DuckDBPyRelation:
    """The result of a file's one query."""
    query = (QUERY_FOLDER / name).read_text(encoding="utf-8")
    (statement,) = database.extract_statements(query)
    return database.sql(query, params={name: (values or {})[name] for name in statement.named_parameters})

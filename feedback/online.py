"""What users make of each release: click, like, skip and fall-back rates, dwell, coverage, from the event store.

Sealed and waiting events count alike, so that a look at a running canary seals nothing. What is dealt to releases are
users, not requests, so intervals are over users (a ratio of sums, linearised; Cochran 1977, section 2.11).
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from core.errors import FeedbackError
from core.intervals import NORMAL_95, wilson
from core.sections import LabelSettings
from feedback.labels import ask, judge_answers
from feedback.segments import check_segment, segment_table

SLATE = (
    '{"request_id":"VARCHAR","event_time_ms":"BIGINT","release":"VARCHAR","degraded":"VARCHAR","model_error":"VARCHAR",'
    '"latency_ms":"DOUBLE"}'
)


@dataclass(frozen=True)
class Rate:
    """A ratio with its 95 % interval over users.

    Attributes:
        value: Hits per trial.
        low: Lower end; that of nothing known where fewer than two users were there.
        high: Upper end.
        design: Variance relative to independent trials of a share, at least 1.
    """

    value: float
    low: float
    high: float
    design: float = 1.0


@dataclass(frozen=True)
class OnlineMetrics:
    """What users made of one release.

    Attributes:
        release: Its id.
        users: Different ones.
        slates: Answers to them, fall-back included.
        wanted: Slates with a click, like or purchase.
        errors: Slates that the release failed at.
        fallbacks: Slates from the fall-back, for whatever reason.
        click_rate: Share of slates wanted.
        like_rate: Share of slates liked.
        skip_rate: Share of shown places that were skipped.
        fallback_rate: Share of slates from the fall-back.
        dwell_ms: Mean of the dwells that were reported.
        items: Different items that it showed by itself.
        p50_ms: Median latency of an answer.
        p99_ms: Its 99th percentile.
    """

    release: str
    users: int
    slates: int
    wanted: int
    errors: int
    fallbacks: int
    click_rate: Rate
    like_rate: Rate
    skip_rate: Rate
    fallback_rate: Rate
    dwell_ms: Rate
    items: int
    p50_ms: float
    p99_ms: float


def online_metrics(
    folder: Path, database: sqlite3.Connection, since_ms: int, settings: LabelSettings
) -> list[OnlineMetrics]:
    """Metrics of every release that answered since a time, by id.

    Args:
        folder: Of the store.
        database: Reads its inbox.
        since_ms: Slates from then on, milliseconds since the epoch; their answers are those so far.
        settings: Windows in which an answer counts.

    Raises:
        FeedbackError: A segment is missing or damaged.
    """
    database.execute("BEGIN")  # one view: an event is sealed or waits, never both
    try:
        segments = database.execute("SELECT sha256 FROM segments WHERE newest_ms >= ?", (since_ms,)).fetchall()
        rows = database.execute(
            "SELECT seq, ingest_ms, key, user_ref, is_impression, CAST(body AS BLOB) FROM events "
            "WHERE segment IS NULL AND ingest_ms >= ? ORDER BY seq",
            (since_ms,),
        ).fetchall()
    finally:
        database.execute("ROLLBACK")
    waiting = segment_table(rows)
    try:
        with duckdb.connect() as log:
            log.register("waiting", waiting)
            union = "SELECT * FROM waiting"
            if segments:
                log.from_parquet([str(check_segment(folder, sha256)) for (sha256,) in segments]).create_view("sealed")
                union += f" UNION ALL SELECT * FROM sealed WHERE ingest_ms >= {int(since_ms)}"
            log.execute(f"CREATE TEMP VIEW log AS {union}")
            judge_answers(log, settings)
            values: dict[str, str | int] = {"slate": SLATE, "since_ms": since_ms}
            users = ask(log, "online.sql", values).to_arrow_table()
            together = ask(log, "online_releases.sql", values).to_arrow_table().to_pylist()
    except duckdb.Error as error:
        raise FeedbackError("online metrics cannot be made", where=str(folder), found=str(error)) from None
    return [_metrics(users.filter(pc.equal(users["release"], row["release"])), row) for row in together]


def ratio(hits: np.ndarray, trials: np.ndarray, *, is_share: bool = True) -> Rate:
    """Sum of hits over sum of trials, with its interval over users.

    Args:
        hits: Of each user ``(U,)``.
        trials: Of each user ``(U,)``.
        is_share: Hits are some of the trials: Wilson's interval with so many independent trials as these are worth.
    """
    total, users = float(trials.sum()), int((trials > 0).sum())
    value = float(hits.sum()) / total if total else 0.0
    if users < 2:
        return Rate(value, 0.0, 1.0 if is_share else float("inf"))
    variance = users / (users - 1) * float(((hits - value * trials) ** 2).sum()) / total**2
    if not is_share:
        half = NORMAL_95 * variance**0.5
        return Rate(value, max(0.0, value - half), value + half)
    binomial = value * (1 - value) / total
    design = max(1.0, variance / binomial) if binomial > 0 else 1.0
    return Rate(value, *wilson(hits.sum() / design, total / design), design)


def _metrics(users: pa.Table, release: dict[str, float]) -> OnlineMetrics:
    column = {name: users[name].to_numpy().astype(np.float64) for name in users.column_names[2:]}
    slates = column["slates"]
    return OnlineMetrics(
        release=str(release["release"]),
        users=len(users),
        slates=int(slates.sum()),
        wanted=int(column["wanted"].sum()),
        errors=int(column["errors"].sum()),
        fallbacks=int(column["fallbacks"].sum()),
        click_rate=ratio(column["wanted"], slates),
        like_rate=ratio(column["liked"], slates),
        skip_rate=ratio(column["skipped"], column["shown"]),
        fallback_rate=ratio(column["fallbacks"], slates),
        dwell_ms=ratio(column["dwell_ms"], column["dwells"], is_share=False),
        items=int(release["items"]),
        p50_ms=float(release["p50_ms"]),
        p99_ms=float(release["p99_ms"]),
    )

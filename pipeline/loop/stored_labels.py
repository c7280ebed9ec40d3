"""Labels from the gateway's store: what users did with lists that they were shown, as events to learn from.

A label is the first wanted answer (click, like, purchase, a long dwell) to an item that really stood in the slate of
the request it names, within the window of its kind. Orphans never become labels, nor what was taken back, nor what a
user does beyond the daily cap. Pseudonyms of users whom the base data knows become their ids again; only the holder of
the key can do that. Others stay pseudonyms, and the gateway asks for them by these.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa

from core.errors import StoreUnavailableError
from core.feedback_keys import keys_folder, load_keys
from core.feedback_labels import TRAINING_EVENTS
from core.feedback_users import user_ref
from core.sections import LabelSettings
from core.settings import Settings
from pipeline.event_store import store_file
from pipeline.loop.inputs import Labels, no_labels

QUERY = """
WITH feedback AS (
    SELECT seq, key, user_ref, CAST(body AS TEXT) AS body FROM events WHERE kind = 'feedback'
), answers AS (
    SELECT seq, user_ref, json_extract(body, '$.type') AS type, json_extract(body, '$.item') AS item,
        json_extract(body, '$.request_id') AS request_id, json_extract(body, '$.event_time_ms') AS time_ms,
        json_extract(body, '$.value') AS value, json_extract(body, '$.dwell_ms') AS dwell_ms
    FROM feedback
    WHERE key NOT IN (
        SELECT json_extract(body, '$.corrects') FROM feedback WHERE json_extract(body, '$.type') = 'correction')
), shown AS (
    SELECT answers.*, ROW_NUMBER() OVER (PARTITION BY request_id, item ORDER BY answers.seq) AS place
    FROM answers JOIN events AS impression
        ON impression.key = 'imp:' || answers.request_id AND impression.user_ref = answers.user_ref
    WHERE (type IN ('click', 'like', 'purchase') OR (type = 'dwell' AND dwell_ms >= :dwell_ms))
        AND EXISTS (
            SELECT 1 FROM json_each(CAST(impression.body AS TEXT), '$.slate') AS slot
            WHERE json_extract(slot.value, '$.item') = answers.item)
        AND time_ms BETWEEN json_extract(CAST(impression.body AS TEXT), '$.event_time_ms') - :clock_error_ms
            AND json_extract(CAST(impression.body AS TEXT), '$.event_time_ms')
                + CASE type WHEN 'purchase' THEN :purchase_ms WHEN 'dwell' THEN :dwell_window_ms ELSE :click_ms END
), capped AS (
    SELECT *, ROW_NUMBER() OVER (PARTITION BY user_ref, time_ms / 86400000 ORDER BY seq) AS of_the_day
    FROM shown WHERE place = 1
)
SELECT user_ref, item, time_ms, value, type FROM capped WHERE of_the_day <= :cap ORDER BY seq
"""


def stored_labels(settings: Settings, known_users: Iterable[str]) -> Labels:
    """Labels of everything that the store under ``paths.var`` holds; none where there is no store.

    Args:
        settings: The sections ``feedback``, ``labels`` and ``paths``.
        known_users: Ids of the base data, whose pseudonyms are turned back.

    Raises:
        StoreUnavailableError: The store cannot be read now.
    """
    file = store_file(settings.paths.var)
    if not file.is_file():
        return no_labels()
    rows = _read(file, settings.labels)
    key = load_keys(settings.feedback.keys or keys_folder(settings.paths.var)).pseudonym
    known = {user_ref(user_id, key): user_id for user_id in known_users}
    columns = list(zip(*rows, strict=True)) if rows else [()] * 5
    table = pa.table(
        {
            "user_id": pa.array([known.get(ref, ref) for ref in columns[0]], pa.string()),
            "item_id": pa.array(columns[1], pa.string()),
            "timestamp": pa.array([ms / 1_000 for ms in columns[2]], pa.float64()),
            "value": pa.array(columns[3], pa.float32()),
            "event": pa.array(columns[4], pa.string()),
        }
    ).cast(TRAINING_EVENTS)
    return Labels(table, hashlib.sha256(repr(rows).encode()).hexdigest())


def _read(file: Path, settings: LabelSettings) -> list[tuple[str, str, int, float | None, str]]:
    limits = {
        "dwell_ms": round(settings.dwell_seconds * 1_000),
        "clock_error_ms": round(settings.clock_error_seconds * 1_000),
        "click_ms": round(settings.click_window_minutes * 60_000),
        "dwell_window_ms": round(settings.dwell_window_minutes * 60_000),
        "purchase_ms": round(settings.purchase_window_minutes * 60_000),
        "cap": settings.user_labels_per_day,
    }
    try:
        connection = sqlite3.connect(f"file:{file}?mode=ro", uri=True)
        try:
            return connection.execute(QUERY, limits).fetchall()
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise StoreUnavailableError("labels cannot be read", where=str(file), found=str(error)) from None

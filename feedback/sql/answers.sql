-- Every answer beside the place it is about, and what becomes of it.
CREATE TEMP TABLE places AS
WITH shown AS (
    SELECT user_ref, from_json(body, $impression) AS slate FROM log WHERE is_impression
)
SELECT slate.request_id AS request_id, user_ref, slate.event_time_ms AS shown_ms, slate.release AS release,
    slate.arm AS arm, slate.experiment AS experiment, slate.degraded AS degraded,
    unnest(slate.slate, recursive := true)
FROM shown;

CREATE TEMP TABLE feedback AS
SELECT key, user_ref, unnest(from_json(body, $feedback)) FROM log WHERE NOT is_impression;

CREATE TEMP TABLE answers AS
WITH judged AS (
    SELECT feedback.*, places.shown_ms,
        CASE
            WHEN (feedback.user_ref, feedback.key) IN (
                SELECT (user_ref, corrects) FROM feedback WHERE corrects IS NOT NULL) THEN 'taken_back'
            WHEN places.item IS NULL THEN 'not_shown'
            WHEN feedback.event_time_ms < shown_ms - $clock_error_ms OR feedback.event_time_ms > shown_ms +
                CASE type WHEN 'purchase' THEN $purchase_ms WHEN 'dwell' THEN $dwell_window_ms ELSE $click_ms END
                THEN 'late'
            ELSE 'counted'
        END AS fate,
        type IN ('click', 'like', 'purchase') OR (type = 'dwell' AND dwell_ms >= $dwell_ms) AS wanted
    FROM feedback LEFT JOIN places USING (request_id, user_ref, item)
    WHERE corrects IS NULL
), first AS (
    SELECT *, fate = 'counted' AND wanted AND row_number() OVER (
        PARTITION BY fate = 'counted' AND wanted, request_id, item ORDER BY event_time_ms, key) = 1 AS is_first
    FROM judged
)
SELECT *, CASE WHEN is_first THEN row_number() OVER (
    PARTITION BY is_first, user_ref, event_time_ms // 86400000 ORDER BY event_time_ms, key) END AS of_the_day,
    is_first AND of_the_day <= $cap AS is_label
FROM first;

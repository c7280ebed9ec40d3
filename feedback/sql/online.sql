-- What each user made of each release. The release is that of the user's route: its fall-back slates count for it.
WITH slates AS (
    SELECT user_ref, unnest(from_json(body, $slate)) FROM log WHERE is_impression
), told AS (
    SELECT request_id, user_ref, bool_or(wanted) AS wanted, bool_or(type = 'like') AS liked,
        count(DISTINCT CASE WHEN type = 'skip' THEN item END) AS skipped,
        count(dwell_ms) AS dwells, coalesce(sum(dwell_ms), 0) AS dwell_ms
    FROM answers WHERE fate = 'counted' GROUP BY ALL
), sizes AS (
    SELECT request_id, user_ref, count(*) AS shown FROM places GROUP BY ALL
)
SELECT slates.release AS release, user_ref, count(*) AS slates,
    count(*) FILTER (degraded <> 'none') AS fallbacks,
    count(*) FILTER (model_error IN ('broken', 'missing')) AS errors,
    count(*) FILTER (wanted) AS wanted, count(*) FILTER (liked) AS liked,
    coalesce(sum(shown), 0) AS shown, coalesce(sum(skipped), 0) AS skipped,
    coalesce(sum(dwells), 0) AS dwells, coalesce(sum(told.dwell_ms), 0) AS dwell_ms
FROM slates LEFT JOIN told USING (request_id, user_ref) LEFT JOIN sizes USING (request_id, user_ref)
WHERE slates.event_time_ms >= $since_ms
GROUP BY ALL ORDER BY release, user_ref;

-- What only all users of a release together tell.
WITH slates AS (
    SELECT unnest(from_json(body, $slate)) FROM log WHERE is_impression
), kept AS (
    SELECT * FROM slates WHERE event_time_ms >= $since_ms
)
SELECT release, quantile_cont(latency_ms, 0.5) AS p50_ms, quantile_cont(latency_ms, 0.99) AS p99_ms,
    (SELECT count(DISTINCT item) FROM places
     WHERE places.release = kept.release AND places.degraded = 'none' AND places.shown_ms >= $since_ms) AS items
FROM kept GROUP BY release ORDER BY release;

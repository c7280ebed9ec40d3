-- Every place that was shown, answered or not.
WITH told AS (
    SELECT request_id, user_ref, item, bool_or(type = 'click') AS clicked, bool_or(type = 'like') AS liked,
        bool_or(type = 'dislike') AS disliked, bool_or(type = 'skip') AS skipped,
        bool_or(type = 'purchase') AS purchased, max(dwell_ms) AS dwell_ms,
        bool_or(type IN ('click', 'like', 'purchase') AND event_time_ms <= shown_ms + $click_ms) AS rewarded
    FROM answers WHERE fate = 'counted' GROUP BY ALL
), beside AS (
    SELECT places.*, told.item IS NOT NULL AS is_answered, told.* EXCLUDE (request_id, user_ref, item)
    FROM places LEFT JOIN told USING (request_id, user_ref, item)
), rows AS (
    SELECT *, max(CASE WHEN is_answered THEN position END) OVER (PARTITION BY request_id) AS last_answered,
        shown_ms + $click_ms < $watermark_ms AS final
    FROM beside
)
SELECT request_id, user_ref, shown_ms, release, arm, experiment, coalesce(degraded, 'none') AS degraded, position, item,
    score, source, propensity, coalesce(clicked, false) AS clicked, coalesce(liked, false) AS liked,
    coalesce(disliked, false) AS disliked, coalesce(skipped, false) AS skipped,
    coalesce(purchased, false) AS purchased, dwell_ms,
    CASE WHEN rewarded THEN 1 ELSE 0 END AS reward,
    CASE WHEN position <= last_answered THEN true END AS examined,
    final, coalesce(final AND arm <> 'fallback' AND propensity > 0 AND propensity <= 1, false) AS for_estimates
FROM rows ORDER BY shown_ms, request_id, position;

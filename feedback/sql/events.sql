-- What users wanted.
SELECT user_ref AS user_id, item AS item_id, event_time_ms / 1000.0 AS timestamp, value, type AS event
FROM answers WHERE is_label ORDER BY timestamp, user_id, item_id, event;

"""The two tables that labelling gives: events to train on, and shown places for off-policy evaluation."""

from __future__ import annotations

import pyarrow as pa

TRAINING_EVENTS = pa.schema(
    [
        pa.field("user_id", pa.string(), nullable=False),  # the user's pseudonym
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("timestamp", pa.float64(), nullable=False),  # seconds since the epoch
        pa.field("value", pa.float32()),  # rating or amount; null where the event had none
        pa.field("event", pa.string(), nullable=False),  # click, like, purchase, dwell
    ]
)
"""What users wanted, as ``data.source=files`` reads it; ordered by (timestamp, user_id, item_id, event)."""

SHOWN_PLACES = pa.schema(
    [
        pa.field("request_id", pa.string(), nullable=False),
        pa.field("user_ref", pa.string(), nullable=False),
        pa.field("shown_ms", pa.int64(), nullable=False),  # milliseconds since the epoch, the gateway's clock
        pa.field("release", pa.string(), nullable=False),
        pa.field("arm", pa.string(), nullable=False),
        pa.field("experiment", pa.string()),
        pa.field("degraded", pa.string(), nullable=False),
        pa.field("position", pa.int16(), nullable=False),  # 1 is the top
        pa.field("item", pa.string(), nullable=False),
        pa.field("score", pa.float64(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("propensity", pa.float64()),  # null where it was not logged
        pa.field("clicked", pa.bool_(), nullable=False),
        pa.field("liked", pa.bool_(), nullable=False),
        pa.field("disliked", pa.bool_(), nullable=False),
        pa.field("skipped", pa.bool_(), nullable=False),
        pa.field("purchased", pa.bool_(), nullable=False),
        pa.field("dwell_ms", pa.int64()),  # the longest within the window; null where there was none
        pa.field("reward", pa.float32(), nullable=False),  # 1 where clicked, liked or purchased in the window, else 0
        # true: answered, or above the last answered place of its slate; null: unknown. Never false: nobody knows that.
        pa.field("examined", pa.bool_()),
        pa.field(
            "final", pa.bool_(), nullable=False
        ),  # the window is closed; false only where provisional rows were asked
        pa.field("for_estimates", pa.bool_(), nullable=False),  # final, arm not fallback, propensity usable
    ]
)
"""A row per place of every slate that counts; ordered by (shown_ms, request_id, position). What was not shown is not
here: candidates lie in the impressions of the dataset."""

"""The event store and its labels."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from core.sections.base import Section


class FeedbackSettings(Section):
    """Where events go and what is taken, see feedback/."""

    store: Literal["sqlite", "nats"] = "sqlite"
    """sqlite: the inbox under paths.var. nats: JetStream, from which one consumer fills that inbox (extra `stream`)."""
    recent: Literal["sqlite", "redis"] = "sqlite"
    """Where users' newest events are read from (redis: extra `stream`)."""
    nats_url: str = "nats://127.0.0.1:4222"
    redis_url: str = "redis://127.0.0.1:6379/0"
    keys: Path | None = None
    """Folder with pseudonym.key and token.keys; keys under paths.var when empty."""
    token_hours: float = Field(24.0, gt=0)
    """How long an answer's token lets its items be clicked."""
    max_batch: int = Field(5_000, ge=1)
    """Most events per call."""
    future_seconds: float = Field(300.0, ge=0)
    """Events may claim to lie this far ahead of the server's clock."""
    too_old_hours: float = Field(168.0, gt=0)
    """Older events are put in quarantine."""
    user_events_per_day: int = Field(2_000, ge=1)
    """Feedback of one user and day beyond this is put in quarantine."""
    recent_events: int = Field(512, ge=1)
    """Newest events per user that a history gives."""
    busy_seconds: float = Field(5.0, gt=0)
    """How long a write waits for another writer before it says "unavailable"."""
    seal_rows: int = Field(50_000, ge=1)
    """Rows per sealed segment."""
    seal_after_seconds: float = Field(60.0, ge=0)
    """Events this long in the inbox may be sealed before a segment is full."""
    keep_inbox_hours: float = Field(72.0, ge=0)
    """Sealed events stay in the inbox for this long: damaged segments are rebuilt from it."""
    retention_days: float = Field(400.0, gt=0)
    """Segments whose newest event is older are deleted, and so are users' recent events."""
    quarantine_days: float = Field(30.0, gt=0)
    """Quarantined events are deleted after this."""


class LabelSettings(Section):
    """From events to labels, see feedback/labels.py."""

    click_window_minutes: float = Field(30.0, gt=0)
    """Clicks, likes, dislikes and skips count this long after the impression."""
    dwell_window_minutes: float = Field(120.0, gt=0)
    purchase_window_minutes: float = Field(1440.0, gt=0)
    dwell_seconds: float = Field(30.0, ge=0)
    """A dwell this long is an event to learn from."""
    allowed_lateness_minutes: float = Field(120.0, ge=0)
    """Watermark = newest event time minus this; windows that end before it are final."""
    clock_error_seconds: float = Field(5.0, ge=0)
    """Feedback may claim to lie this long before its impression: clocks of clients are wrong."""
    user_labels_per_day: int = Field(200, ge=1)
    """Labels of one user and day beyond this are left out and counted."""
    spike_sigma: float = Field(6.0, gt=0)
    """An item whose share of a day's positive labels lies this many standard errors above its own past is flagged."""
    spike_minimum: int = Field(30, ge=1)
    """Fewer positive labels a day are never a spike."""

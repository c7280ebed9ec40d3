"""The event store and its labels."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from core.sections.base import Section


class FeedbackSettings(Section):
    """What the gateway writes down, see feedback/README.md."""

    keys: Path | None = None
    """Folder with pseudonym.key and token.keys; keys under paths.var when empty."""
    token_hours: float = Field(24.0, gt=0)
    """How long an answer's token lets its items be clicked."""
    future_seconds: float = Field(300.0, ge=0)
    """Feedback that claims to lie further ahead of the server's clock goes into quarantine."""
    oldest_days: float = Field(14.0, gt=0)
    """Feedback older than this goes into quarantine."""
    user_events_per_day: int = Field(2_000, ge=1)
    """Feedback of one user and day beyond this goes into quarantine."""
    orphan_minutes: float = Field(60.0, ge=0)
    """Feedback waits this long for its impression before it is an orphan."""
    segment_events: int = Field(10_000, ge=1)
    """Looks of the schedule seal when this many events wait in the inbox; a retraining always does."""
    segment_minutes: float = Field(60.0, gt=0)
    """They also seal when an event has waited this long."""
    keep_sealed_hours: float = Field(24.0, ge=0)
    """Sealed events stay in the inbox this long: a damaged segment is written again from there."""
    retention_days: float = Field(400.0, gt=0)
    """Segments and histories older than this are deleted."""
    busy_seconds: float = Field(2.0, gt=0)
    """How long a write waits for another one before it gives up for now."""
    nats: str = ""
    """nats://host:port: the gateway publishes events there, `conch events ingest` stores them. Empty: the inbox of this
    machine. Needs the extra `stream`."""
    redis: str = ""
    """redis://host:port/0: where the gateway reads users' newest events. Empty: the inbox of this machine."""
    spool_events: int = Field(100_000, ge=0)
    """Events that wait on the gateway's disk while the broker is away; more are refused with 503."""

    @model_validator(mode="after")
    def _old_ids_outlive_late_copies(self) -> Self:
        if self.retention_days <= self.oldest_days:
            raise ValueError("feedback.retention_days must exceed feedback.oldest_days: a late copy would count twice")
        return self

    @model_validator(mode="after")
    def _stream_is_whole(self) -> Self:
        if bool(self.nats) != bool(self.redis):
            raise ValueError("feedback.nats and feedback.redis go together: give both or neither")
        return self


class LabelSettings(Section):
    """From events to labels, see feedback/labels.py."""

    click_window_minutes: float = Field(30.0, gt=0)
    """Clicks and likes count this long after the impression."""
    dwell_window_minutes: float = Field(120.0, gt=0)
    purchase_window_minutes: float = Field(1440.0, gt=0)
    dwell_seconds: float = Field(30.0, ge=0)
    """A dwell this long is an event to learn from."""
    clock_error_seconds: float = Field(5.0, ge=0)
    """Feedback may claim to lie this long before its impression: clocks of clients are wrong."""
    user_labels_per_day: int = Field(200, ge=1)
    """Labels of one user and day beyond this are left out."""

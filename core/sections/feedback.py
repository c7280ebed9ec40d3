"""The event store and its labels."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from core.sections.base import Section


class FeedbackSettings(Section):
    """What the gateway writes down, see pipeline/event_store.py."""

    keys: Path | None = None
    """Folder with pseudonym.key and token.keys; keys under paths.var when empty."""
    token_hours: float = Field(24.0, gt=0)
    """How long an answer's token lets its items be clicked."""


class LabelSettings(Section):
    """From events to labels, see pipeline/loop/stored_labels.py."""

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

"""What a canary may do to users before it answers all of them."""

from __future__ import annotations

from pydantic import Field

from core.sections.base import Section


class CanarySettings(Section):
    """Guardrails of a canary, see core/rollout.py and pipeline/loop/canary.py."""

    automatic: bool = True
    """Looks of `conch schedule` advance a canary that touches no guardrail and take back one that does."""
    stage_minutes: float = Field(60.0, ge=0)
    """A stage lasts at least this long: users of one hour of the day are not all users."""
    min_requests: int = Field(1_000, ge=1)
    """Per arm before a stage may end."""
    alpha: float = Field(0.05, gt=0, lt=1)
    """Chance, over a whole stage and all its looks, to take back a canary that is as good."""
    srm_p: float = Field(0.001, gt=0, lt=1)
    """Users are dealt wrongly, and nothing is decided, where chance explains their numbers with less than this."""
    error_margin: float = Field(0.005, ge=0)
    """Absolute rise of the share of requests that a release fails at."""
    fallback_margin: float = Field(0.01, ge=0)
    """Absolute rise of the share of slates from the fall-back."""
    click_margin: float = Field(0.01, ge=0)
    """Absolute loss of the share of slates with a click, like or purchase."""
    p99_ratio: float = Field(1.25, ge=1)
    """Largest p99 latency relative to the live release's."""

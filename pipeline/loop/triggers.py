"""Should the loop run now? Time, volume, drift, decay, or a person; every answer has its reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

import numpy as np

from core.sections import ScheduleSettings

Trigger = Literal["manual", "time", "volume", "drift", "decay"]
SMALLEST_SHARE = 1e-4
"""Empty bins get this share: a logarithm of 0 says nothing."""
REARM = 0.5
"""The drift trigger is armed again below this part of its limits."""


@dataclass(frozen=True)
class Drift:
    """How far a window's histogram is from the reference."""

    psi: float
    jensen_shannon: float


@dataclass(frozen=True)
class Signals:
    """What triggers look at.

    Attributes:
        now: Aware time.
        last_run: When the loop last trained; None if never.
        runs_today: Runs in the last 24 hours.
        new_labels: Since the last run.
        drifts: Per window, oldest first: the largest over all histograms (users, items, scores, new items).
        click_rate: Of the newest window, with ``shown`` places behind it.
        first_click_rate: Of the live release's first window, with ``first_shown`` places.
        is_asked: A person asked.
    """

    now: datetime
    last_run: datetime | None = None
    runs_today: int = 0
    new_labels: int = 0
    drifts: Sequence[Drift] = ()
    click_rate: float = 0.0
    shown: int = 0
    first_click_rate: float = 0.0
    first_shown: int = 0
    is_asked: bool = False


@dataclass(frozen=True)
class Answer:
    """Run or not, what for, and why."""

    run: bool
    trigger: Trigger | None
    reason: str


def decide(signals: Signals, settings: ScheduleSettings) -> Answer:
    """The first trigger that fires, unless a guard holds it; a person's wish passes the guards but the daily one."""
    trigger, reason = _fired(signals, settings)
    if trigger is None:
        return Answer(False, None, reason)
    if signals.runs_today >= settings.max_per_day:
        return Answer(False, trigger, f"{reason}; held: {signals.runs_today} runs in 24 hours")
    if trigger == "manual":
        return Answer(True, trigger, reason)
    since = None if signals.last_run is None else signals.now - signals.last_run
    if since is not None and since < timedelta(minutes=settings.cooldown_minutes):
        return Answer(False, trigger, f"{reason}; held: cooldown, the last run is {since} ago")
    if signals.new_labels < settings.least_events:
        return Answer(False, trigger, f"{reason}; held: {signals.new_labels} new labels of {settings.least_events}")
    return Answer(True, trigger, reason)


def _fired(signals: Signals, settings: ScheduleSettings) -> tuple[Trigger | None, str]:
    if signals.is_asked:
        return "manual", "a person asked"
    if has_drifted(signals.drifts, settings):
        last = signals.drifts[-1]
        return "drift", f"{settings.drift_windows} windows drifted, the last by PSI {last.psi:.2f}"
    gap = decay_sigmas(signals)
    if gap >= settings.decay_sigmas:
        return (
            "decay",
            f"click rate {signals.click_rate:.4f}, {gap:.1f} standard errors below {signals.first_click_rate:.4f}",
        )
    if signals.new_labels >= settings.volume:
        return "volume", f"{signals.new_labels:,} new labels"
    if signals.last_run is None or signals.now - signals.last_run >= timedelta(minutes=settings.every_minutes):
        return "time", "never ran" if signals.last_run is None else f"last run {signals.last_run.isoformat()}"
    return None, "nothing fired"


def has_drifted(drifts: Sequence[Drift], settings: ScheduleSettings) -> bool:
    """True at the window that completes a row of drifting ones; then not again before a calm window.

    A window drifts beyond either limit and is calm below half of both; one between them changes nothing.
    """
    row, armed, fired = 0, True, False
    for drift in drifts:
        fired = False
        if drift.psi > settings.psi or drift.jensen_shannon > settings.jensen_shannon:
            row += 1
            if armed and row >= settings.drift_windows:
                armed, fired = False, True
        else:
            row = 0
            if drift.psi < REARM * settings.psi and drift.jensen_shannon < REARM * settings.jensen_shannon:
                armed = True
    return fired


def decay_sigmas(signals: Signals) -> float:
    """Standard errors by which the click rate lies below that of the release's first window; 0 without data."""
    if not signals.shown or not signals.first_shown:
        return 0.0
    total = signals.shown + signals.first_shown
    pooled = (signals.click_rate * signals.shown + signals.first_click_rate * signals.first_shown) / total
    error = np.sqrt(pooled * (1 - pooled) * (1 / signals.shown + 1 / signals.first_shown))
    return float((signals.first_click_rate - signals.click_rate) / error) if error > 0 else 0.0


def drift_between(reference: np.ndarray, window: np.ndarray) -> Drift:
    """PSI and Jensen-Shannon divergence (bits) of two histograms with the same bins ``(n,)``.

    >>> drift_between(np.array([5, 5]), np.array([50, 50]))
    Drift(psi=0.0, jensen_shannon=0.0)
    """
    p, q = (np.maximum(counts / max(counts.sum(), 1), SMALLEST_SHARE) for counts in (reference, window))
    p, q = p / p.sum(), q / q.sum()
    middle = (p + q) / 2
    shared = float((p * np.log2(p / middle)).sum() + (q * np.log2(q / middle)).sum()) / 2
    return Drift(float(((p - q) * np.log(p / q)).sum()), max(shared, 0.0))


def largest_drift(reference: Mapping[str, np.ndarray], window: Mapping[str, np.ndarray]) -> Drift:
    """The largest of each measure over all histograms that both have."""
    found = [drift_between(reference[name], window[name]) for name in reference if name in window]
    return Drift(max((d.psi for d in found), default=0.0), max((d.jensen_shannon for d in found), default=0.0))

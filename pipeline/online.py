"""`conch online`: what users make of each release, by the event store."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

from core.progress import Progress
from core.settings import Settings
from pipeline.events import open_store


def online_of(settings: Settings, hours: float) -> list[dict[str, Any]]:
    """Metrics of every release that answered in the last hours, as plain values.

    Raises:
        FeedbackError: There is no event store, or it cannot be read.
    """
    since_ms = round((time.time() - hours * 3_600) * 1_000)
    with open_store(settings) as store:
        return [asdict(one) for one in store.online(since_ms, settings.labels)]


def show_online(found: list[dict[str, Any]], progress: Progress) -> None:
    """Tells people; shares in per cent with their 95 % intervals over users."""
    if not found:
        progress.say("online: no slates in this time")
    for one in found:
        progress.say(
            f"online: {one['release']}: {one['users']:,} users, {one['slates']:,} slates, {one['items']:,} items"
        )
        for name in ("click_rate", "like_rate", "skip_rate", "fallback_rate"):
            rate = one[name]
            progress.say(f"  {name:<14} {rate['value']:.2%}  {rate['low']:.2%} to {rate['high']:.2%}")
        dwell = one["dwell_ms"]
        progress.say(f"  dwell          {dwell['value']:,.0f} ms  {dwell['low']:,.0f} to {dwell['high']:,.0f}")
        progress.say(f"  latency        p50 {one['p50_ms']:.1f} ms, p99 {one['p99_ms']:.1f} ms")

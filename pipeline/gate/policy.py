"""G6: may anything be published now?"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from core.errors import GateError
from pipeline.gate.findings import Finding, GateName
from pipeline.gate.rules import PolicyRules

GATE: GateName = "G6 policy"
DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
MINUTES_PER_DAY, MINUTES_PER_WEEK = 1_440, 10_080
WINDOW = re.compile(rf"({'|'.join(DAYS)}) ([01]\d|2[0-3]):([0-5]\d) - ({'|'.join(DAYS)}) ([01]\d|2[0-3]):([0-5]\d)")


def check_policy(rules: PolicyRules, now: datetime, published: Sequence[datetime], approved: bool) -> list[Finding]:
    """Publishes in the last 24 hours, freeze windows, and a person's word where that is asked for.

    Args:
        rules: Limits.
        now: Aware time.
        published: When releases went live, aware times.
        approved: Whether a person named this release.

    Raises:
        GateError: A freeze window that cannot be read.
    """
    recent = sum(now - timedelta(days=1) < when <= now for when in published)
    frozen = next((window for window in rules.freeze if in_window(window, now)), None)
    found = [
        _finding("publishes per day", recent < rules.publishes_per_day, f"{recent} of {rules.publishes_per_day} used"),
        _finding("freeze windows", frozen is None, "none is open" if frozen is None else f"frozen: {frozen}"),
    ]
    if rules.needs_approval:
        found.append(_finding("approval", approved, "given" if approved else "nobody approved this release"))
    return found


def in_window(window: str, now: datetime) -> bool:
    """Whether ``now`` lies in a weekly window of UTC.

    >>> in_window("Fri 18:00 - Mon 06:00", datetime(2026, 11, 22, 12, tzinfo=UTC))
    True
    """
    match = WINDOW.fullmatch(window)
    if match is None:
        raise GateError(
            "freeze window cannot be read",
            where="policy.freeze",
            expected="such as Fri 18:00 - Mon 06:00",
            found=window,
        )
    day, hour, minute, last_day, last_hour, last_minute = match.groups()
    start, end = _minute_of_week(day, hour, minute), _minute_of_week(last_day, last_hour, last_minute)
    utc = now.astimezone(UTC)
    at = utc.weekday() * MINUTES_PER_DAY + utc.hour * 60 + utc.minute
    return (at - start) % MINUTES_PER_WEEK < (end - start) % MINUTES_PER_WEEK


def _minute_of_week(day: str, hour: str, minute: str) -> int:
    return DAYS.index(day) * MINUTES_PER_DAY + int(hour) * 60 + int(minute)


def _finding(check: str, fine: bool, reason: str) -> Finding:
    return Finding(GATE, check, "pass" if fine else "fail", reason)

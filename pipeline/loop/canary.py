"""A canary's guardian: every look reads what users made of both releases, and advances, holds or takes back.

The numbers come from the event store, so that a gateway that was restarted, or several of them, change nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from core.progress import Progress
from core.rollout import ArmCounts, Decision, decide, next_stage
from core.sections import CanarySettings
from core.settings import Settings
from feedback.online import OnlineMetrics
from pipeline.events import open_store
from serving import audit
from serving.pointer import Pointer, pointer_file, read_pointer
from serving.publish import Publisher

ACTOR = "conch canary"
NOBODY = ArmCounts(users=0, requests=0, errors=0, fallbacks=0, clicked=0, p99_ms=0)


@dataclass(frozen=True)
class CanaryLook:
    """One look at a running canary.

    Attributes:
        time: ISO, UTC.
        canary: Its release.
        stable: The live one.
        weight: Share of users at this look.
        since: ISO, UTC: when this stage began.
        verdict: hold, advance or rollback.
        reason: Why.
        arms: What was compared, stable first.
    """

    time: str
    canary: str
    stable: str
    weight: float
    since: str
    verdict: str
    reason: str
    arms: tuple[dict[str, Any], ...]


def look_after_canary(
    settings: Settings, *, acts: bool = True, now: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> CanaryLook | None:
    """Looks once, does what the guardrails say, and writes it down; None where no canary runs.

    Args:
        settings: The sections ``canary``, ``labels``, ``feedback`` and ``paths``.
        acts: Change what is live; False only looks.
        now: Clock.

    Raises:
        PublishError: The change failed, or somebody changed what is live meanwhile; the pointer is as it was.
        FeedbackError: The store cannot be read.
    """
    var = settings.paths.var
    pointer = read_pointer(pointer_file(var))
    if pointer is None or pointer.canary is None:
        return None
    since = stage_began(var, pointer)
    with open_store(settings) as store:
        found = {one.release: one for one in store.online(round(since.timestamp() * 1_000), settings.labels)}
    stable, canary = (counts_of(found.get(name)) for name in (pointer.stable, pointer.canary))
    decision = _in_time(decide(stable, canary, pointer.weight, settings.canary), now() - since, settings.canary)
    look = CanaryLook(
        now().isoformat(timespec="seconds"), pointer.canary, pointer.stable, pointer.weight,
        since.isoformat(timespec="seconds"), decision.verdict, decision.reason,
        (stable.model_dump(), canary.model_dump()),
    )  # fmt: skip
    if acts:
        publisher = Publisher(var, ACTOR)
        if decision.verdict == "advance":
            publisher.move_canary(next_stage(pointer.weight), reason=decision.reason, seen=pointer)
        elif decision.verdict == "rollback":
            publisher.abort_canary(reason=decision.reason, seen=pointer)
        _note(var, look)
    return look


def show_look(look: CanaryLook, progress: Progress) -> None:
    """Tells people what a look found."""
    progress.say(f"canary: {look.canary} beside {look.stable} at {look.weight:.2%} since {look.since}")
    for name, arm in zip((look.stable, look.canary), look.arms, strict=True):
        rate = arm["clicked"] / max(1, arm["requests"])
        progress.say(
            f"canary: {name}: {arm['users']:,} users, {arm['requests']:,} slates, {rate:.2%} wanted, "
            f"{arm['fallbacks']:,} fall-backs, {arm['errors']:,} errors, p99 {arm['p99_ms']:.1f} ms"
        )
    progress.say(f"canary: {look.verdict}: {look.reason}")


def stage_began(var: Path, pointer: Pointer) -> datetime:
    """When the canary got the share that it has, by the audit log."""
    began = None
    for record in audit.records(audit.audit_file(var)):
        after = record["after"] or {}
        share = (after.get("canary"), after.get("weight"), after.get("salt"))
        if share != (pointer.canary, pointer.weight, pointer.salt):
            began = None
        elif began is None:
            began = datetime.fromisoformat(record["time"])
    return began or datetime.fromtimestamp(pointer_file(var).stat().st_mtime, UTC)


def counts_of(metrics: OnlineMetrics | None) -> ArmCounts:
    """What the guardrails look at."""
    if metrics is None:
        return NOBODY
    return ArmCounts(
        users=metrics.users, requests=metrics.slates, errors=metrics.errors, fallbacks=metrics.fallbacks,
        clicked=metrics.wanted, click_design=metrics.click_rate.design, p99_ms=metrics.p99_ms,
    )  # fmt: skip


def _in_time(decision: Decision, age: timedelta, rules: CanarySettings) -> Decision:
    """Nothing advances before its time; what has to go goes at once."""
    if decision.verdict == "advance" and age < timedelta(minutes=rules.stage_minutes):
        return Decision("hold", f"{decision.reason}; the stage lasts {rules.stage_minutes:g} minutes")
    return decision


def _note(var: Path, look: CanaryLook) -> None:
    file = var / "loop" / "canary.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(asdict(look)) + "\n")

"""The loop by itself: looks at all triggers every minute, runs at most once at a time, writes down every answer."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

from apscheduler.schedulers.blocking import BlockingScheduler

from core.artifacts import Artifact, parent_artifact
from core.dataset import load_dataset
from core.errors import ConchError
from core.progress import Progress
from core.settings import Settings
from pipeline.loop.canary import CanaryLook
from pipeline.loop.inputs import Labels
from pipeline.loop.journal import Action, Journal
from pipeline.loop.lease import Lease
from pipeline.loop.retrain import Publishing, Run, retrain
from pipeline.loop.triggers import Answer, Signals, decide
from pipeline.loop.watch import ClickRates, click_rates, drifts, item_bins
from serving.pointer import pointer_file, read_pointer

LEASE_NAME = "loop"
RENEWALS = 4
"""Per lease period."""


@dataclass(frozen=True)
class Tick:
    """One look at the triggers.

    Attributes:
        time: ISO, UTC.
        run: Whether the loop ran.
        trigger: What fired; None where nothing did.
        reason: Why, or why not.
        outcome: What the run decided.
        is_stale: The live release is older than ``schedule.stale_hours``.
    """

    time: str
    run: bool
    trigger: str | None
    reason: str
    outcome: str | None = None
    is_stale: bool = False


def tick(
    settings: Settings,
    publishing: Publishing,
    read_labels: Callable[[bool], Labels],
    progress: Progress,
    *,
    is_asked: bool = False,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Tick:
    """Looks once. A second call while a run is going on does nothing but say so.

    Args:
        settings: Section ``schedule``.
        publishing: Where releases go live.
        read_labels: Labels of the store; True for a run: with everything that it holds by now.
        progress: Where lines go.
        is_asked: A person asked for a run.
        now: Clock.
    """
    labels = read_labels(False)
    champion = publishing.champion()
    signals = _signals(settings, labels, champion, is_asked, now())
    answer = decide(signals, settings.schedule)
    pointer = read_pointer(pointer_file(settings.paths.var))
    if answer.run and not is_asked and pointer is not None and pointer.canary is not None:
        answer = Answer(False, answer.trigger, f"{answer.reason}; held: the canary {pointer.canary} is not decided yet")
    outcome = None
    if answer.run:
        lease = Lease(
            settings.paths.var / "loop" / "lease.sqlite",
            LEASE_NAME,
            f"{socket.gethostname()}:{os.getpid()}:{threading.get_ident()}",
            settings.schedule.lease_seconds,
        )
        epoch = lease.take()
        if epoch is None:
            answer = Answer(False, answer.trigger, f"{answer.reason}; held: another run is going on")
        else:
            with _renewed(lease, epoch, settings.schedule.lease_seconds):
                fenced = Fenced(publishing, lease, epoch)
                run = Run(answer.trigger or "manual", read_labels(True), is_asked=is_asked)
                outcome = retrain(settings, run, fenced, progress, now).action
    return _note(settings, Tick(
        now().isoformat(timespec="seconds"), answer.run, answer.trigger, answer.reason, outcome,
        _is_stale(champion, settings, now()),
    ))  # fmt: skip


class Fenced:
    """Publishing that first proves that its run still holds the lease: a run that was paused cannot overtake."""

    def __init__(self, inner: Publishing, lease: Lease, epoch: int) -> None:
        self._inner, self._lease, self._epoch = inner, lease, epoch

    def champion(self) -> Artifact | None:
        return self._inner.champion()

    def publish(self, release: Artifact, reason: str, *, canary_only: bool) -> Action:
        self._lease.renew(self._epoch)
        return self._inner.publish(release, reason, canary_only=canary_only)


def run_schedule(
    settings: Settings, look: Callable[[], Tick], guard: Callable[[], CanaryLook | None], progress: Progress
) -> None:
    """Looks at once and then every ``schedule.check_seconds`` until interrupted, at the triggers and after the canary.

    Looks that were missed (a suspended machine, a long run) become one. A canary is watched during a run too.
    """

    def triggers() -> None:
        found = look()
        progress.say(
            f"schedule: {'ran' if found.run else 'no'}: {found.reason}" + (", stale" if found.is_stale else "")
        )

    def canary() -> None:
        found = guard()
        if found is not None:
            progress.say(f"canary: {found.canary} at {found.weight:.2%}: {found.verdict}: {found.reason}")

    def safely(job: Callable[[], None]) -> None:
        try:
            job()
        except ConchError as error:  # the next look tries again; serving is not touched
            progress.say(f"schedule: {error}")

    scheduler = BlockingScheduler(timezone=UTC)
    for job in (triggers, canary):
        scheduler.add_job(
            safely,
            "interval",
            (job,),
            seconds=settings.schedule.check_seconds,
            next_run_time=datetime.now(UTC),
            coalesce=True,
            max_instances=1,
            misfire_grace_time=None,
        )
    try:
        scheduler.start()
    except (KeyboardInterrupt, SystemExit):
        progress.say("schedule: stopped")


def _signals(settings: Settings, labels: Labels, champion: Artifact | None, is_asked: bool, now: datetime) -> Signals:
    journal = Journal(settings.paths.var)
    runs = journal.times("published", "canary", "refused", "failed")
    counts = [d.figures["labels"] for d in journal.read() if "labels" in d.figures and d.action != "failed"]
    rates, drifted = ClickRates(), []
    if champion is not None and len(labels.places):  # labels of a file come without what was shown
        rates = click_rates(labels.places, str(champion.manifest.tensors["release_id"]))
        learned = partial(parent_artifact, champion, settings.paths.var, "dataset")
        since_s = champion.manifest.created.timestamp()
        drifted = drifts(labels.table, labels.places, since_s, lambda: item_bins(load_dataset(learned())))
    return Signals(
        now=now,
        last_run=runs[-1] if runs else None,
        runs_today=sum(now - when < timedelta(days=1) for when in runs),
        new_labels=len(labels) - (int(counts[-1]) if counts else 0),
        drifts=drifted,
        click_rate=rates.newest,
        shown=rates.newest_places,
        first_click_rate=rates.first,
        first_shown=rates.first_places,
        is_asked=is_asked,
    )


@contextmanager
def _renewed(lease: Lease, epoch: int, seconds: float) -> Iterator[None]:
    """Renews the lease from a thread while the run goes on, and gives it back."""
    stop = threading.Event()

    def renew() -> None:
        while not stop.wait(seconds / RENEWALS):
            try:
                lease.renew(epoch)
            except ConchError:
                return  # taken over: publishing will find out

    thread = threading.Thread(target=renew, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        lease.release(epoch)


def _is_stale(champion: Artifact | None, settings: Settings, now: datetime) -> bool:
    return champion is not None and now - champion.manifest.created > timedelta(hours=settings.schedule.stale_hours)


def _note(settings: Settings, found: Tick) -> Tick:
    file = settings.paths.var / "loop" / "schedule.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(asdict(found)) + "\n")
    return found

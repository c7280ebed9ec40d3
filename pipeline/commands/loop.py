"""Verbs of the feedback loop: judge, retrain, schedule, demonstrate."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from pipeline.console import Terminal
from pipeline.options import ConfigOption, SetOption, settings_from

app = typer.Typer()
REFUSED = 3
"""Exit code of a refusal: a normal outcome, told apart from success (0) and from failure (2)."""

LabelsOption = Annotated[
    Path | None,
    typer.Option(help="Parquet with user_id, item_id, timestamp, value, event; the gateway's store by default."),
]


@app.command()
def gate(
    approve: Annotated[bool, typer.Option(help="A person approves this release, where the rules ask for one.")] = False,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Judge the newest release against the live one; bless it or say why not (exit code 3)."""
    from pipeline.loop.judging import judge_newest

    if not judge_newest(settings_from(config, set_), approve, Terminal()):
        raise typer.Exit(REFUSED)


@app.command("retrain")
def retrain_once(
    labels: LabelsOption = None,
    approve: Annotated[bool, typer.Option(help="A person approves what comes out.")] = False,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Train a challenger on base data and new labels, judge it, publish it or refuse it (exit code 3)."""
    from pipeline.loop.judging import read_labels
    from pipeline.loop.publishing import PublishedReleases
    from pipeline.loop.retrain import Run, retrain

    settings, terminal = settings_from(config, set_), Terminal()
    run = Run("manual", read_labels(settings, labels), approved=approve, is_asked=True)
    decision = retrain(settings, run, PublishedReleases(settings), terminal)
    terminal.say(f"retrain: {decision.action} {decision.release or ''}: {decision.reason}")
    if decision.action not in ("published", "canary"):
        raise typer.Exit(REFUSED if decision.action in ("refused", "skipped") else 2)


@app.command()
def schedule(
    labels: LabelsOption = None,
    once: Annotated[bool, typer.Option(help="Look at the triggers once and end: for cron.")] = False,
    now: Annotated[bool, typer.Option(help="A person asks for a run at the first look.")] = False,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Run the loop by itself: by time, volume, drift, decay; advance or take back a canary; all is written down."""
    from pipeline.loop.canary import CanaryLook, look_after_canary
    from pipeline.loop.judging import read_labels
    from pipeline.loop.publishing import PublishedReleases
    from pipeline.loop.schedule import Tick, run_schedule, tick

    settings, terminal = settings_from(config, set_), Terminal()
    asked = [now]

    def look() -> Tick:
        is_asked, asked[0] = asked[0], False
        publishing = PublishedReleases(settings, "conch schedule")
        return tick(settings, publishing, partial(read_labels, settings, labels), terminal, is_asked=is_asked)

    def guard() -> CanaryLook | None:
        return look_after_canary(settings) if settings.canary.automatic else None

    if once:
        try:
            canary = guard()
            if canary is not None:
                terminal.say(f"canary: {canary.verdict}: {canary.reason}")
        finally:  # a canary that cannot be judged keeps no trigger from being looked at
            found = look()
            terminal.say(f"schedule: {'ran' if found.run else 'no'}: {found.reason} {found.outcome or ''}".rstrip())
        return
    run_schedule(settings, look, guard, terminal)


@app.command("demo-loop")
def demo_loop(
    rounds: Annotated[int, typer.Option(min=1, help="Retrains after the first release.")] = 3,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Simulated users, several retrains, a worse release refused, a rollback; writes a page."""
    from pipeline.loop.demo import check_story, run_demo_loop

    check_story(run_demo_loop(settings_from(config, set_), Terminal(), rounds=rounds))

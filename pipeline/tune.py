"""`conch tune`: runs the study and tells what it found as tables."""

from __future__ import annotations

from rich import box
from rich.table import Table

from core.progress import Progress
from core.settings import Settings
from pipeline.console import Terminal
from training.tuning.outcome import Outcome
from training.tuning.results import cost, figure, gap, told
from training.tuning.stage import Request, tune

SHOWN = 3
"""Trials in the table."""


def run_tuning(settings: Settings, request: Request, terminal: Terminal) -> Outcome:
    """Tunes and shows the best trials, the profile of a single setting, and the importances."""
    progress: Progress = terminal
    outcome = tune(settings, request, progress)
    terminal.console.print(trials_table(outcome))
    if len(outcome.space) == 1:
        for key, rows in outcome.profiles.items():
            table = Table(box=box.SIMPLE, title=f"by {key}")
            for name in (key.split(".")[-1], f"{outcome.metric} ± se", "below the best ± se", "cost"):
                table.add_column(name, justify="right", no_wrap=True)
            for row in rows:
                table.add_row(
                    f"{row.value:.4g}" if isinstance(row.value, float) else str(row.value),
                    figure(row.top),
                    gap(rows, row),
                    cost(row.top),
                )
            terminal.console.print(table)
    if outcome.importances:
        shares = ", ".join(f"{key} {share:.0%}" for key, share in outcome.importances.items())
        terminal.say(f"importance ({outcome.importance_note}): {shares}")
    return outcome


def trials_table(outcome: Outcome) -> Table:
    """What it was, what is picked, the smallest that is as good, and the best trials."""
    table = Table(box=box.SIMPLE, title=f"study {outcome.study}, measured on: {outcome.scheme}")
    table.add_column("", no_wrap=True)
    table.add_column(f"{outcome.metric} ± se", justify="right", no_wrap=True)
    table.add_column("cost", justify="right", no_wrap=True)
    table.add_column("settings")
    rows = [("as it was", outcome.baseline), ("one se", outcome.one_se), ("one se, paired", outcome.one_se_paired)]
    if outcome.picked is not None:
        rows.append(("picked", outcome.picked))
    measured = [trial.measured for trial in outcome.trials if trial.measured and trial.same_as is None]
    top = outcome.front or tuple(sorted(measured, key=lambda found: -found.quality)[:SHOWN])
    rows += [(("front: " if outcome.front else "") + found.label, found) for found in top]
    for name, found in rows:
        table.add_row(name, figure(found), cost(found), told(found.values) or "unchanged")
    return table

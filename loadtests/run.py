"""Runs one scenario from start to end: `make loadtest SCENARIO=steady`, or

    .venv/bin/python -m loadtests.run steady --var var

Starts Triton (and the gateway where the scenario asks it) on free loopback ports with the live release, runs Locust,
does the scenario's faults, judges, writes requests, Locust's HTML page and CSV files and a summary, and ends what it
started. Exit code 1 when an objective is missed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from core.artifacts import latest_artifact, write_json
from core.dataset import load_dataset
from core.errors import ConchError, ServerError
from core.settings import ROOT, load_settings
from loadtests.growth import Growth, Watch
from loadtests.judge import Requests, Verdict, judge, judge_faults, judge_growth, summary
from loadtests.plan import Plan
from loadtests.scenario import Scenario, known_scenarios, load_scenario
from loadtests.servers import Target, running

DEADLINE_SECONDS = 10.0
GRACE_SECONDS = 60.0
WATCH_SECONDS = 1.0
MISSED = 1

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def run(
    scenario: Annotated[str, typer.Argument(help=f"{', '.join(known_scenarios())}, or a TOML file.")] = "steady",
    var: Annotated[Path, typer.Option(help="paths.var with a live repository.")] = Path("var"),
    out: Annotated[
        Path | None, typer.Option(help="Where results go; loadtests/<scenario> under var by default.")
    ] = None,
    config: Annotated[list[Path] | None, typer.Option(help="Settings file; may repeat.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", "-s", help="A setting; may repeat.")] = None,
    seed: Annotated[int, typer.Option(help="Of the users drawn.")] = 0,
) -> None:
    """Run a load scenario against the live release and judge it."""
    chosen = load_scenario(scenario)
    load_settings(config or (), set_ or ())  # a typo is told before anything starts
    extra = [part for file in config or () for part in ("--config", str(file))]
    extra += [part for text in set_ or () for part in ("--set", text)]
    folder = (out or var / "loadtests" / Path(scenario).stem).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    requests, failed_faults, growth = drive(chosen, var.resolve(), folder, extra, seed)
    verdicts = [*judge(chosen, requests), *judge_faults(chosen, failed_faults), *judge_growth(chosen, growth)]
    figures = summary(chosen, requests)
    write_json(
        folder / "summary.json",
        {
            "scenario": chosen.model_dump(mode="json"),
            "figures": figures,
            "growth": {} if growth is None else growth.by_name(),
            "verdicts": [asdict(verdict) for verdict in verdicts],
            "cores": os.cpu_count(),
            "date": f"{datetime.now(UTC):%Y-%m-%dT%H:%MZ}",
        },
    )
    show(chosen, figures, verdicts, folder)
    if not all(verdict.kept for verdict in verdicts):
        raise typer.Exit(MISSED)


def drive(
    scenario: Scenario, var: Path, folder: Path, extra: Sequence[str], seed: int
) -> tuple[Requests, int, Growth | None]:
    """Runs the load; gives back every request, how many faults could not be done, and how the servers grew.

    Raises:
        ServerError: What is tested does not start, or Locust fails.
        ArtifactError: Nothing was trained in ``var``.
    """
    users = frequent_users(var)
    for name in ("began", "requests.json"):
        (folder / name).unlink(missing_ok=True)
    activates = any(fault.action == "activate" for fault in scenario.faults)
    with running(scenario.protocol, var, folder, extra, activates=activates) as target:
        plan = Plan(scenario, target.address, users, folder, seed, DEADLINE_SECONDS)
        plan.write(folder / "plan.json")
        failures: list[str] = []
        harm = threading.Thread(target=_faults, args=(scenario, target, folder, failures), daemon=True)
        harm.start()
        with Watch(target.pids, WATCH_SECONDS) as watch:
            _locust(scenario, folder)
        harm.join(GRACE_SECONDS)
        undone = len(failures) + harm.is_alive()
    growth = watch.growth(scenario.warm_up_seconds)
    rows = json.loads((folder / "requests.json").read_text(encoding="ascii"))
    return Requests.of(rows), undone, growth


def frequent_users(var: Path) -> tuple[str, ...]:
    """Users of the newest dataset, those with most events first."""
    dataset = load_dataset(latest_artifact(var, "dataset"))
    counts = np.bincount(dataset.events.user_rows, minlength=dataset.n_users)
    return tuple(dataset.users.ids[np.argsort(-counts, kind="stable")].tolist())


def show(scenario: Scenario, figures: dict[str, float], verdicts: Sequence[Verdict], folder: Path) -> None:
    """The summary for people."""
    console = Console(highlight=False)
    console.print(f"{scenario.title}: " + ", ".join(f"{name} {value:g}" for name, value in figures.items()))
    table = Table("objective", "wanted", "found", "", box=None)
    for one in verdicts:
        table.add_row(one.name, f"{one.wanted:g}", f"{one.found:g}", "kept" if one.kept else "[red]missed")
    console.print(table)
    console.print(f"wrote {folder}")


def _faults(scenario: Scenario, target: Target, folder: Path, failures: list[str]) -> None:
    """Does the faults at their times, counted from the first request."""
    if not scenario.faults:
        return
    until = time.monotonic() + GRACE_SECONDS
    while not (folder / "began").exists() and time.monotonic() < until:
        time.sleep(0.05)
    began = time.monotonic()
    for moment, fault in sorted(((at, one) for one in scenario.faults for at in one.moments), key=lambda due: due[0]):
        time.sleep(max(0.0, began + moment - time.monotonic()))
        try:
            target.harm(fault)
        except ConchError as error:
            failures.append(str(error))
            typer.secho(f"loadtest: {error}", err=True, fg=typer.colors.RED)


def _locust(scenario: Scenario, folder: Path) -> None:
    command = [
        sys.executable, "-m", "locust", "-f", str(ROOT / "loadtests" / "users.py"), "--headless", "--only-summary",
        "--html", str(folder / "locust.html"), "--csv", str(folder / "locust"), "--exit-code-on-error", "0",
    ]  # fmt: skip
    environment = {**os.environ, "CONCH_LOAD": str(folder / "plan.json"), "PYTHONPATH": str(ROOT)}
    log = folder / "locust.log"
    with log.open("wb") as stream:
        done = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT,
            timeout=scenario.seconds + GRACE_SECONDS,
        )  # fmt: skip
    if done.returncode or not (folder / "requests.json").is_file():
        tail = log.read_text(encoding="utf-8", errors="replace")[-1_500:]
        raise ServerError("Locust failed", where=str(log), found=tail)


def main() -> int:
    """Entry point; an expected failure is told without a traceback."""
    try:
        return int(app(standalone_mode=False) or 0)  # click gives back the code of typer.Exit
    except ConchError as error:
        typer.secho(f"loadtest: {error}", err=True, fg=typer.colors.RED)
        return 2


if __name__ == "__main__":
    sys.exit(main())

"""What growth costs: seconds and peak memory of the dataset stage and of training mf, from one to 100 million events.

    .venv/bin/python -m bench.growth measure --millions 1,1,3,10,30,100,1,1

Data is MovieLens-100K expanded (``data.source=fractal``). Each stage is a ``conch`` command in a process of its own;
its peak is that process's high-water mark of resident memory, mapped pages of files included. Every command pays for
the interpreter, its libraries and compiled code whatever the data: what it takes for 100 thousand events is measured
too and told apart. CPU seconds (all threads, user and kernel mode) say what the work costs, wall seconds also how busy
the machine was with other things. Writes bench/results/growth.json and growth.svg.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean, median
from typing import Annotated, Any

import matplotlib
import numpy as np
import typer
from matplotlib.figure import Figure

from bench.machine import measured_commit, shown, this_machine
from bench.process import environment, run_child
from core.artifacts import latest_artifact, write_json
from core.columns import counts_of
from core.dataset import load_dataset
from core.progress import SILENT
from core.settings import load_settings
from pipeline.cli import guarded
from training.data.sources import expand

SETTINGS = {
    "mf.dimension": 64,
    "mf.epochs": 4,
    "train.threads": 2,
    "data.sort_threads": 2,
}
"""Beside the defaults."""
LEAST_EVENTS = 100_000
"""The smallest expansion: what a command takes for it is mostly its start."""
STAGES = ("expand", "dataset", "mf")
COUNTED = ("dataset", "mf")
"""Stages that the totals hold; making the data is told beside them."""
CLOCKS = ("seconds", "cpu_seconds")
STARTS = 5
SMALL_EVENTS = 1_500_000
QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9, 0.99)
TIMEOUT_SECONDS = 7_200

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True)
class Stage:
    """One command.

    Attributes:
        seconds: Wall time of the whole process.
        cpu_seconds: Time of its threads.
        peak_mb: Its high-water mark of resident memory.
        load: Load average of the minute before it, this program's own included.
    """

    seconds: float
    cpu_seconds: float
    peak_mb: float
    load: float


@dataclass(frozen=True)
class Size:
    """One amount of data.

    Attributes:
        events: Events of the dataset.
        users: Users with events.
        items: Items with events.
        stages: By name.
        shape: See :func:`shape_of`.
        fit_seconds: What ``conch train`` itself tells of mf, without loading.
        loss: Of mf after its last epoch.
    """

    events: int
    users: int
    items: int
    stages: dict[str, Stage]
    shape: dict[str, Any]
    fit_seconds: float
    loss: float

    def total(self, clock: str, stages: Sequence[str] = COUNTED) -> float:
        """Seconds of some stages by a clock: ``seconds`` or ``cpu_seconds``."""
        return sum(float(getattr(self.stages[name], clock)) for name in stages)


def shape_of(counts: np.ndarray) -> dict[str, Any]:
    """How unequal counts are, whatever their mean.

    Args:
        counts: Events of each user or item, positive.

    Returns:
        Quantiles as multiples of the mean, the Gini coefficient, and the slope of log count over log rank (Zipf) from
        the first to the fiftieth percent of ranks.
    """
    ordered = np.sort(counts)[::-1].astype(np.float64)
    ranks = np.arange(1, len(ordered) + 1)
    middle = slice(max(1, len(ordered) // 100), len(ordered) // 2)
    slope = np.polyfit(np.log(ranks[middle]), np.log(ordered[middle]), 1)[0]
    gini = 1 - 2 * (np.cumsum(ordered[::-1]).sum() / ordered.sum() - 0.5) / len(ordered)
    return {
        "mean": round(float(ordered.mean()), 2),
        "quantiles": {str(share): round(float(np.quantile(ordered, share) / ordered.mean()), 3) for share in QUANTILES},
        "gini": round(float(gini), 4),
        "slope": round(float(slope), 3),
    }


@app.command(hidden=True, name="expand")
def expand_(events: int, var: Path) -> None:
    """Make the data alone: a stage of its own."""
    settings = load_settings((), ("data.source=fractal", f"data.fractal_events={events}"))
    expand(settings.data, var, datetime.now(UTC), SILENT)


@app.command()
def measure(
    millions: Annotated[str, typer.Option(help="Sizes in turn; one may stand twice.")] = "1,1,3,10,30,100,1,1",
    work: Annotated[Path, typer.Option(help="Takes the data of one size at a time.")] = Path("var/bench/growth"),
    cache: Annotated[Path | None, typer.Option(help="Folder that has fetched files already.")] = None,
    out: Annotated[Path, typer.Option(help="Where the results go.")] = Path("bench/results"),
) -> None:
    """Measure the start of the commands, then all sizes."""
    _measured(LEAST_EVENTS, work, cache)  # what is compiled once is in numba's cache afterwards
    starts = [_measured(LEAST_EVENTS, work, cache) for _ in range(STARTS)]
    sizes = []
    for text in millions.split(","):
        sizes.append(_measured(round(float(text) * 1_000_000), work, cache))
        result = _result(starts, sizes)
        typer.echo(f"{sizes[-1].events:,} events: {result['rows'][-1]}", err=True)
        write_json(out / "growth.json", result)
        plot(result, out / "growth.svg")


def _measured(events: int, work: Path, cache: Path | None) -> Size:
    var = work / "var"
    shutil.rmtree(var, ignore_errors=True)
    (var / "cache").mkdir(parents=True)
    for file in () if cache is None else cache.glob("*.whl"):
        shutil.copy(file, var / "cache")
    options = [f'paths.var="{var}"', "data.source=fractal", f"data.fractal_events={events}"]
    options += [f"{name}={value}" for name, value in SETTINGS.items()]
    given = [part for option in options for part in ("--set", option)]
    conch = [str(Path(sys.executable).with_name("conch"))]
    commands = {
        "expand": [sys.executable, "-m", "bench.growth", "expand", str(events), str(var)],
        "dataset": [*conch, "dataset", *given],
        "mf": [*conch, "train", "mf", *given],
    }
    stages = {name: _run(name, commands[name], work) for name in STAGES}
    dataset = load_dataset(latest_artifact(var, "dataset"))
    mf = latest_artifact(var, "mf").manifest.metrics
    users = counts_of(dataset.events.user_rows, dataset.n_users)
    items = counts_of(dataset.events.item_rows, dataset.n_items)
    shape = {"history_length": shape_of(users[users > 0]), "popularity": shape_of(items[items > 0])}
    size = Size(
        len(dataset.events), int((users > 0).sum()), int((items > 0).sum()), stages, shape,
        float(mf["train_seconds"]), round(float(mf["curves"]["mf loss"][-1][1]), 5),
    )  # fmt: skip
    shutil.rmtree(var)
    return size


def _run(name: str, command: Sequence[str], work: Path) -> Stage:
    load = os.getloadavg()[0]
    log = work / f"{name}.log"
    done = run_child(command, env=environment(2), timeout_seconds=TIMEOUT_SECONDS, log=log)
    if done.code:
        raise RuntimeError(f"{name}: {done.reason} (see {log})")
    return Stage(round(done.seconds, 2), round(done.cpu_seconds, 2), round(done.peak_mb, 1), round(load, 2))


def rows_of(starts: Sequence[Size], sizes: Sequence[Size]) -> list[dict[str, Any]]:
    """Seconds per million events of each size, by both clocks: of whole commands, and beyond the median start."""
    rows = []
    for size in sizes:
        millions, beyond = size.events / 1e6, (size.events - starts[0].events) / 1e6
        row: dict[str, Any] = {"events": size.events}
        for clock in CLOCKS:
            row[clock] = {
                "per_million": round(size.total(clock) / millions, 3),
                "per_million_beyond_start": round(_beyond(starts, size, clock, COUNTED) / beyond, 3),
                **{name: round(_beyond(starts, size, clock, (name,)) / beyond, 3) for name in STAGES},
            }
        row["peak_mb"] = {name: stage.peak_mb for name, stage in size.stages.items()}
        rows.append(row)
    return rows


def _beyond(starts: Sequence[Size], size: Size, clock: str, stages: Sequence[str]) -> float:
    return size.total(clock, stages) - median(start.total(clock, stages) for start in starts)


def growth_of(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Highest figure of any size over the mean of those of about one million events, by clock; empty without these."""
    small = [row for row in rows if row["events"] < SMALL_EVENTS]
    return {
        clock: {
            name: round(max(row[clock][name] for row in rows) / fmean(row[clock][name] for row in small), 3)
            for name in ("per_million", "per_million_beyond_start", *COUNTED)
        }
        for clock in CLOCKS
        if small
    }


def _result(starts: list[Size], sizes: list[Size]) -> dict[str, Any]:
    rows = rows_of(starts, sizes)
    return {
        "title": "What growth costs: MovieLens-100K expanded, dataset stage and mf",
        "command": "python -m bench.growth " + shlex.join(shown(sys.argv[1:])),
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": asdict(this_machine()),
        "commit": measured_commit(),
        "settings": SETTINGS,
        "highest_peak_mb": max(stage.peak_mb for size in sizes for stage in size.stages.values()),
        "highest_over_one_million": growth_of(rows),
        "rows": rows,
        "starts": [asdict(start) for start in starts],
        "sizes": [asdict(size) for size in sizes],
    }


def plot(result: dict[str, Any], path: Path) -> None:
    """Seconds per million events and peak memory over the number of events, as SVG."""
    rows = sorted(result["rows"], key=lambda row: row["events"])
    events = [row["events"] for row in rows]
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    cost, memory = figure.subplots(1, 2)
    for clock, mark in zip(CLOCKS, ("o-", "s--"), strict=True):
        figures = [row[clock]["per_million_beyond_start"] for row in rows]
        cost.plot(events, figures, mark, label=f"dataset and mf, {clock.replace('_', ' ')}")
    for name in COUNTED:
        cost.plot(events, [row["cpu_seconds"][name] for row in rows], ".:", label=f"{name}, cpu seconds")
    cost.set(xscale="log", xlabel="events", ylabel="per million events, beyond the start", ylim=(0, None))
    for name in STAGES:
        memory.plot(events, [row["peak_mb"][name] / 1024 for row in rows], "o-", label=name)
    memory.axhline(4, color="grey", linewidth=1)
    memory.set(xscale="log", xlabel="events", ylabel="peak memory, GiB", ylim=(0, None))
    cost.legend(frameon=False, fontsize=8)
    memory.legend(frameon=False, fontsize=8)
    with matplotlib.rc_context({"svg.hashsalt": "growth"}):  # the same names inside for the same figures
        figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    sys.exit(guarded(app))

"""What growth costs: seconds and peak memory of the dataset stage and of training mf, from one to 100 million events.

    .venv/bin/python -m bench.growth measure --millions 1,3,10,30,100,1

Data is MovieLens-100K expanded (``data.source=fractal``). Each stage is a ``conch`` command in a process of its own;
its peak is that process's high-water mark of resident memory, mapped pages of files included. Every command pays for
the interpreter, its libraries and compiled code whatever the data: what it takes for 100 thousand events is measured
too and told apart. Writes bench/results/growth.json and growth.svg.
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
from typing import Annotated, Any

import matplotlib
import numpy as np
import typer

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
    "mf.cg_steps": 3,
    "train.threads": 2,
    "data.sort_threads": 2,
}
"""Beside the defaults."""
LEAST_EVENTS = 100_000
"""The smallest expansion: what a command takes for it is mostly its start."""
STAGES = ("expand", "dataset", "mf")
COUNTED = ("dataset", "mf")
"""Stages that the totals hold; making the data is told beside them."""
QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9, 0.99)
TIMEOUT_SECONDS = 7_200

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True)
class Stage:
    """One command.

    Attributes:
        seconds: Wall time of the whole process.
        peak_mb: Its high-water mark of resident memory.
        load: Load average of the minute before it, this program's own included.
    """

    seconds: float
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

    @property
    def seconds(self) -> float:
        """Of all counted stages."""
        return sum(self.stages[name].seconds for name in COUNTED)


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
    millions: Annotated[str, typer.Option(help="Sizes in turn; one may stand twice.")] = "1,3,10,30,100,1",
    work: Annotated[Path, typer.Option(help="Takes the data of one size at a time.")] = Path("var/bench/growth"),
    cache: Annotated[Path | None, typer.Option(help="Folder that has fetched files already.")] = None,
    out: Annotated[Path, typer.Option(help="Where the results go.")] = Path("bench/results"),
) -> None:
    """Measure all sizes, smallest start first."""
    start = _measured(LEAST_EVENTS, work, cache)  # compiles what is cached
    start = _measured(LEAST_EVENTS, work, cache)
    sizes = []
    for text in millions.split(","):
        sizes.append(_measured(round(float(text) * 1_000_000), work, cache))
        _say(f"{sizes[-1].events:,} events: {_row(sizes[-1], start)}")
        write_json(out / "growth.json", _result(start, sizes))
        _plot(start, sizes, out / "growth.svg")


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
    return Stage(round(done.seconds, 2), round(done.peak_mb, 1), round(load, 2))


def _row(size: Size, start: Size) -> dict[str, Any]:
    """Figures per million events: with everything, and beyond what the least data takes."""
    millions, beyond = size.events / 1e6, (size.events - start.events) / 1e6
    return {
        "seconds_per_million": round(size.seconds / millions, 3),
        "seconds_per_million_beyond_start": round((size.seconds - start.seconds) / beyond, 3),
        "by_stage_beyond_start": {
            name: round((size.stages[name].seconds - start.stages[name].seconds) / beyond, 3) for name in STAGES
        },
        "peak_mb": {name: stage.peak_mb for name, stage in size.stages.items()},
    }


def _result(start: Size, sizes: list[Size]) -> dict[str, Any]:
    rows = [_row(size, start) for size in sizes]
    first: dict[str, float] = {
        name: float(
            np.mean([row[name] for row, size in zip(rows, sizes, strict=True) if size.events < 1.5e6] or [np.nan])
        )
        for name in ("seconds_per_million", "seconds_per_million_beyond_start")
    }
    most = {
        name: round(max(row[name] for row in rows) / value, 3) for name, value in first.items() if np.isfinite(value)
    }
    return {
        "title": "What growth costs: MovieLens-100K expanded, dataset stage and mf",
        "command": "python -m bench.growth " + shlex.join(shown(sys.argv[1:])),
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": asdict(this_machine()),
        "commit": measured_commit(),
        "settings": SETTINGS,
        "start": asdict(start) | {"seconds": round(start.seconds, 2)},
        "sizes": [asdict(size) | row for size, row in zip(sizes, rows, strict=True)],
        "highest_peak_mb": max(stage.peak_mb for size in sizes for stage in size.stages.values()),
        "most_over_one_million": most,
    }


def _plot(start: Size, sizes: list[Size], path: Path) -> None:
    matplotlib.use("svg")
    from matplotlib import pyplot as plt

    ordered = sorted(sizes, key=lambda size: size.events)
    events = [size.events for size in ordered]
    rows = [_row(size, start) for size in ordered]
    figure, (cost, memory) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    cost.plot(events, [row["seconds_per_million"] for row in rows], "o-", label="whole commands")
    cost.plot(events, [row["seconds_per_million_beyond_start"] for row in rows], "s--", label="beyond their start")
    for name in COUNTED:
        cost.plot(events, [row["by_stage_beyond_start"][name] for row in rows], ".:", label=f"{name}, beyond its start")
    cost.set(xscale="log", xlabel="events", ylabel="seconds per million events", ylim=(0, None))
    for name in STAGES:
        memory.plot(events, [size.stages[name].peak_mb / 1024 for size in ordered], "o-", label=name)
    memory.axhline(4, color="grey", linewidth=1)
    memory.set(xscale="log", xlabel="events", ylabel="peak memory, GiB", ylim=(0, None))
    cost.legend(frameon=False)
    memory.legend(frameon=False)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _say(line: str) -> None:
    typer.echo(line, err=True)


if __name__ == "__main__":
    sys.exit(guarded(app))

"""Training by several workers beside training by one process: losses of the first steps, quality, seconds.

    .venv/bin/conch dataset --set paths.var=var/bench/distributed
    .venv/bin/python -m bench.distributed --name movielens-100k --set paths.var=var/bench/distributed

mf, gat and the ranker are trained by the train stage itself, one number of workers after the other, each ranker over
that run's recall models. Quality is NDCG@10 of all test users with a past; seconds are those of the stage and include
the start of the workers. Workers of one machine share its cores: without cores to spare they cannot be faster.
"""

from __future__ import annotations

import shlex
import sys
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from bench.machine import measured_commit, shown, this_machine
from core.artifacts import latest_artifact, write_json
from core.bootstrap import standard_error
from core.dataset import Dataset, load_dataset
from core.histories import pad
from core.metrics import hits, ndcg, truth_of
from core.progress import Silent
from core.settings import Settings, change_settings
from pipeline.cli import guarded
from pipeline.options import ConfigOption, SetOption, settings_from
from training.distributed.updates import FIRST_STEPS
from training.models.ranker import load_ranker
from training.models.recall import load_model
from training.ranking.examples import propose
from training.requests import user_codes
from training.stage import train

CURVES = {"mf": "mf loss", "gat": "first steps of gat", "ranker": "first steps of ranker"}
"""What each model tells after each of its first steps; a step of mf is an epoch."""
CUTOFF = 10
USERS_AT_ONCE = 128

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


class Notes(Silent):
    """Keeps the losses of first steps."""

    def __init__(self) -> None:
        self.points: list[tuple[str, float]] = []

    def record(self, curve: str, step: int, value: float) -> None:
        self.points.append((curve, value))

    def losses(self, model: str) -> list[float]:
        """In order."""
        return [value for curve, value in self.points if curve == CURVES[model]][:FIRST_STEPS]


@dataclass(frozen=True)
class Run:
    """One number of workers.

    Attributes:
        workers: How many.
        synchronisation: How they step.
        losses: By model, of the first steps.
        quality: By model, NDCG@10 of each test user.
        seconds: By model.
    """

    workers: int
    synchronisation: str
    losses: dict[str, list[float]]
    quality: dict[str, np.ndarray]
    seconds: dict[str, float]


def measure(settings: Settings, dataset: Dataset) -> Run:
    """Trains all three models and asks them about the test split."""
    losses, seconds = {}, {}
    for model in CURVES:
        notes = Notes()
        (made,) = train(settings, notes, (model,))
        losses[model], seconds[model] = notes.losses(model), float(made.manifest.metrics["train_seconds"])
    lists = _lists(settings, dataset)
    users, truth = _asked(settings, dataset)
    quality = {model: ndcg(hits(lists[model][:, :CUTOFF], truth), truth.sizes, CUTOFF) for model in CURVES}
    assert all(len(values) == len(users) for values in quality.values())
    return Run(settings.train.workers, settings.train.synchronisation, losses, quality, seconds)


def compared(run: Run, one: Run) -> dict[str, Any]:
    """A run's figures by model, beside those of the single process."""
    return {
        "workers": run.workers,
        "synchronisation": run.synchronisation,
        "models": {
            model: {
                "largest_loss_difference": largest_gap(run.losses[model], one.losses[model]),
                "steps_compared": len(run.losses[model]),
                f"ndcg@{CUTOFF}": round(float(values.mean()), 5),
                f"ndcg@{CUTOFF}_se": round(standard_error(values), 5),
                "difference": round(float((values - one.quality[model]).mean()), 5),
                "difference_se": round(standard_error(values - one.quality[model]), 5),
                "seconds": run.seconds[model],
            }
            for model, values in run.quality.items()
        },
    }


def largest_gap(losses: list[float], others: list[float]) -> float:
    """Largest difference of two runs' losses of the same steps; infinite where one did fewer."""
    if len(losses) != len(others):
        return float("inf")
    return max(abs(mine - other) for mine, other in zip(losses, others, strict=True))


@app.command()
def distributed(
    name: Annotated[str, typer.Option(help="Name of the result file.")],
    workers: Annotated[str, typer.Option(help="Numbers of workers, the first is what others are held against.")] = (
        "1,2,4"
    ),
    periodic: Annotated[bool, typer.Option(help="Also workers that average their weights now and then.")] = True,
    out: Annotated[Path, typer.Option(help="Where the result file goes.")] = Path("bench/results"),
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Measure on the newest dataset under ``paths.var``; writes bench/results/distributed-<name>.json."""
    settings = settings_from(config, set_)
    settings = change_settings(settings, {"mf.epochs": max(settings.mf.epochs, FIRST_STEPS)})
    dataset = load_dataset(latest_artifact(settings.paths.var, "dataset"))
    plans: list[dict[str, Any]] = [{"train.workers": int(count)} for count in workers.split(",")]
    if periodic:
        more = {"train.synchronisation": "periodic"}
        plans += [plan | more for plan in plans if plan["train.workers"] > 1]
    runs = []
    for plan in plans:
        runs.append(measure(change_settings(settings, plan), dataset))
        for model, row in compared(runs[-1], runs[0])["models"].items():
            typer.echo(f"{runs[-1].workers} workers, {runs[-1].synchronisation}, {model}: {row}", err=True)
    write_json(
        out / f"distributed-{name}.json",
        {
            "title": "Training by several workers beside one process",
            "command": shlex.join(["python", "-m", "bench.distributed", *shown(sys.argv[1:])]),
            "date": datetime.now(UTC).date().isoformat(),
            "machine": asdict(this_machine()),
            "threads": settings.train.threads or this_machine().cores,
            "commit": measured_commit(),
            "users": len(runs[0].quality["mf"]),
            "runs": [compared(run, runs[0]) for run in runs],
        },
    )


def _asked(settings: Settings, dataset: Dataset) -> tuple[np.ndarray, Any]:
    """Test users with a past, and what they did."""
    past = dataset.events.of_splits(settings.train.fit)
    later = dataset.events.of_splits(("test",))
    later = later.where(np.isin(later.user_rows, past.user_rows))
    users, places = np.unique(later.user_rows, return_inverse=True)
    return users, truth_of(places, later.item_rows, len(users))


@torch.no_grad()
def _lists(settings: Settings, dataset: Dataset) -> dict[str, np.ndarray]:
    """By model, what the newest artefacts give the asked users, ``(users, K)``."""
    var = settings.paths.var
    recall = {source: load_model(latest_artifact(var, source)) for source in settings.recall.sources}
    ranker = load_ranker(latest_artifact(var, "ranker"))
    users, _ = _asked(settings, dataset)
    histories = dataset.histories(settings.train.fit)
    parts: dict[str, list[np.ndarray]] = {model: [] for model in CURVES}
    for first in range(0, len(users), USERS_AT_ONCE):
        part = users[first : first + USERS_AT_ONCE]
        padded, codes = pad(histories.select(part), dataset.n_items), user_codes(dataset, part)
        proposed = {source: propose(model, padded, codes) for source, model in recall.items()}
        history = (torch.from_numpy(column) for column in (padded.rows, padded.ages, padded.values))
        ranked = ranker(*history, codes, *(column for both in proposed.values() for column in both))
        for model in CURVES:
            parts[model].append(proposed.get(model, ranked)[0][:, :CUTOFF].numpy())
    return {model: np.concatenate(rows) for model, rows in parts.items()}


if __name__ == "__main__":
    sys.exit(guarded(app))

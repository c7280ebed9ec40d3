"""Seconds to equal quality: our matrix factorisation against irspack's iALS.

    .venv/bin/python -m bench.mf_speed --name gowalla --events EVENTS.csv.gz --dimension 128 --alpha0 0.01 --reg 0.002

Both minimise the same objective with the same settings on the train split. First each program is trained with a
growing number of epochs and scored on valid, averaged over seeds; the target is a share of irspack's NDCG@20 at the end
of its curve. Then each is trained with the first number of epochs from which it stays at the target or above, in turns,
each time in a fresh process that has trained one epoch before the clock starts (compiled code is loaded by then).
Clocked is the fit alone, from pairs in memory to vectors in memory. irspack runs with both of its solvers; the faster
one counts.
"""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean, median
from typing import Annotated, Any

import numpy as np
import typer

from bench.adapters.contract import Settings, write_problem
from bench.environments import ensure
from bench.machine import shown, this_machine
from bench.process import environment, run_child
from bench.scoring import Question, per_user, question
from core.artifacts import code_commit, write_json
from core.dataset import SPLITS, load_dataset
from core.settings import load_settings
from pipeline.cli import guarded
from training.data.stage import build_dataset

METRIC = "ndcg@20"
LIST_LENGTH = 100
MOST_USERS = 2_000
"""Users of valid that quality is measured on; a random choice where there are more."""
TIMEOUT_SECONDS = 1_200

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True)
class Program:
    """One side of the comparison.

    Attributes:
        name: Shown in the result.
        module: Answers requests, see ``bench.adapters.contract``.
        environment: Its environment; None is the project's own.
        extra: Settings of its own.
    """

    name: str
    module: str
    environment: str | None
    extra: Settings


OURS = Program("conch mf", "bench.speed_ours", None, {})
PEERS = (
    Program("irspack iALS, CG", "bench.adapters.irspack_ials", "irspack", {"solver_type": "CG"}),
    Program("irspack iALS, iALS++", "bench.adapters.irspack_ials", "irspack", {"solver_type": "IALSPP"}),
)


@dataclass(frozen=True)
class Trained:
    """One training: its epochs, seconds, and where its lists lie."""

    epochs: int
    seconds: float
    lists: Path


@dataclass(frozen=True)
class Bench:
    """What every training needs."""

    problem: Path
    base: Settings
    work: Path
    threads: int

    def train(self, program: Program, epochs: list[int], label: str, seed: int) -> list[Trained]:
        """Trains once for each number of epochs, in one process.

        Raises:
            RuntimeError: The program failed.
        """
        folder = self.work / f"{program.name.replace(' ', '-')}-{label}"
        folder.mkdir(parents=True, exist_ok=True)
        request = {
            "problem": str(self.problem),
            "settings": [{**self.base, **program.extra, "train_epochs": count} for count in epochs],
            "seed": seed,
            "k": LIST_LENGTH,
            "out": str(folder),
        }
        write_json(folder / "request.json", request)
        python = ensure(program.environment, self.work.parent / "envs").python
        done = run_child(
            [str(python), "-m", program.module, str(folder / "request.json")],
            env=environment(self.threads),
            timeout_seconds=TIMEOUT_SECONDS,
            log=folder / "log.txt",
        )
        if done.code:
            raise RuntimeError(f"{program.name}: {done.reason} (see {folder / 'log.txt'})")
        solved = json.loads((folder / "facts.json").read_text(encoding="utf-8"))["solved"]
        return [
            Trained(epochs[one["place"]], float(one["fit_seconds"]), folder / f"{one['place']}.npz") for one in solved
        ]


@app.command()
def speed(
    name: Annotated[str, typer.Option(help="Name of the result file.")],
    events: Annotated[Path, typer.Option(help="Events file.")],
    dimension: Annotated[int, typer.Option(min=1)] = 64,
    alpha0: Annotated[float, typer.Option(help="Weight of every pair as a zero.")] = 0.1,
    reg: Annotated[float, typer.Option(help="Weight of the squared norms, as both define it.")] = 0.005,
    most_epochs: Annotated[int, typer.Option(help="Longest training of the curve.", min=2)] = 12,
    share: Annotated[float, typer.Option(help="Target as a share of the peer's final quality.")] = 0.995,
    repeats: Annotated[int, typer.Option(help="Timed trainings of each program.", min=1)] = 5,
    threads: Annotated[int, typer.Option(help="Threads of each program.", min=1)] = 2,
    seeds: Annotated[int, typer.Option(help="Trainings that each point of a curve is the mean of.", min=1)] = 3,
    seed: Annotated[int, typer.Option(help="First seed of start values, and of the choice of users.")] = 0,
    work: Annotated[Path, typer.Option(help="Where runs and environments lie.")] = Path("var/bench"),
    out: Annotated[Path, typer.Option(help="Where the result file goes.")] = Path("bench/results"),
) -> None:
    """Compare seconds to equal quality; writes bench/results/mf-speed-<name>.json."""
    folder = (work / f"mf-speed-{name}").resolve()
    asked = _question(events.resolve(), folder, seed)
    base = {"n_components": dimension, "alpha0": alpha0, "reg": reg}
    bench = Bench(folder / "problem.npz", base, folder, threads)
    write_problem(bench.problem, asked.problem)
    curves = {}
    for program in (OURS, *PEERS):
        counts = list(range(1, most_epochs + 1))
        runs = [bench.train(program, counts, f"curve-{one}", one) for one in range(seed, seed + seeds)]
        curves[program.name] = {
            same[0].epochs: fmean(_quality(asked, one.lists) for one in same) for same in zip(*runs, strict=True)
        }
        _say(f"{program.name}: {METRIC} {curves[program.name][most_epochs]:.4f} after {most_epochs} epochs")
    target = share * max(curves[peer.name][most_epochs] for peer in PEERS)
    programs = (OURS, *PEERS)
    needed = {program.name: first_staying(curves[program.name], target) for program in programs}
    seconds: dict[str, list[float]] = {program.name: [] for program in programs}
    for turn in range(repeats):
        for program in programs:
            if (epochs := needed[program.name]) is not None:
                seconds[program.name].append(bench.train(program, [1, epochs], f"turn-{turn}", seed)[-1].seconds)
    rows = {
        name: {
            "epochs": epochs,
            "curve": {str(count): round(value, 5) for count, value in curves[name].items()},
            "seconds": [round(one, 4) for one in seconds[name]],
            **summary(seconds[name]),
        }
        for name, epochs in needed.items()
    }
    result = {
        "title": f"Seconds to {share:.1%} of irspack's final {METRIC} on valid, fitted on train",
        "data": name,
        "pairs": len(asked.problem.user_rows),
        "settings": base,
        "target": round(target, 5),
        "seeds": seeds,
        "programs": rows,
        **comparison(seconds[OURS.name], [seconds[peer.name] for peer in PEERS]),
        "threads": threads,
        "machine": asdict(this_machine()),
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "commit": code_commit(),
        "command": "python -m bench.mf_speed " + shlex.join(shown(sys.argv[1:])),
    }
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / f"mf-speed-{name}.json", result)
    _say(f"wrote {out}/mf-speed-{name}.json: {result.get('times_faster')} times faster than irspack")


def first_staying(curve: dict[int, float], target: float) -> int | None:
    """The least number of epochs from which quality is at least ``target`` up to the end; None where it ends below.

    Half-trained factors can score above trained ones by chance, which is no goal to race for.
    """
    below = [epochs for epochs, quality in curve.items() if quality < target]
    return min((epochs for epochs in curve if epochs > max(below, default=0)), default=None)


def summary(seconds: list[float]) -> dict[str, float]:
    """Median, least and most; empty where nothing was timed."""
    if not seconds:
        return {}
    return {"median": round(median(seconds), 4), "least": round(min(seconds), 4), "most": round(max(seconds), 4)}


def comparison(ours: list[float], peers: list[list[float]]) -> dict[str, Any]:
    """How many times faster ours is than the peer's fastest solver: ratio of medians, and its spread over the turns."""
    timed = [one for one in peers if one]
    if not ours or not timed:
        return {}
    fastest = min(timed, key=median)
    per_turn = [theirs / own for theirs, own in zip(fastest, ours, strict=True)]
    return {
        "times_faster": round(median(fastest) / median(ours), 2),
        "times_faster_per_turn": [round(one, 2) for one in per_turn],
    }


def _question(events: Path, folder: Path, seed: int) -> Question:
    """Valid users of the data, at most ``MOST_USERS`` of them, after learning from train."""
    settings = load_settings((), ("data.source=files", f'data.events="{events}"', f'paths.var="{folder / "var"}"'))
    dataset = load_dataset(build_dataset(settings))
    users = np.unique(dataset.events.of_splits(("valid",)).user_rows)
    if len(users) > MOST_USERS:
        users = np.random.default_rng(seed).choice(users, MOST_USERS, replace=False)
    asked = (dataset.events.splits != SPLITS.index("valid")) | np.isin(dataset.events.user_rows, users)
    return question(replace(dataset, events=dataset.events.where(asked)), ("train",), ("train",), "valid")


def _quality(asked: Question, lists: Path) -> float:
    with np.load(lists, allow_pickle=False) as data:
        values = per_user(asked, data["lists"])
    return float(values["warm"][METRIC].mean())


def _say(line: str) -> None:
    typer.echo(line, err=True)


if __name__ == "__main__":
    sys.exit(guarded(app))

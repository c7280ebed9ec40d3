"""AUC and logloss of RecBole's click models on MovieLens-100K: what `bench.ranker_auc` of ours stands beside.

    .venv/bin/python -m bench.ranker_peers

RecBole's own protocol: label rating >= 4, ratings cut 8:1:1 at random by seed 2020, attributes of users and items,
early stop on valid.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from bench.environments import EnvironmentFailedError, ensure
from bench.machine import measured_commit, this_machine
from bench.process import environment, run_child
from core.artifacts import write_json
from core.errors import ConchError
from pipeline.cli import guarded

SPLIT_SEED = 2020
MODELS: dict[str, dict[str, Any]] = {"DeepFM": {}}
"""RecBole's default settings, those of its published ML-100K results."""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


class PeerFailedError(ConchError):
    """RecBole did not run."""


@app.command()
def ranker_peers(
    seeds: Annotated[int, typer.Option(help="Seeds 0 to N-1 of the models; the split is one.", min=1)] = 3,
    threads: Annotated[int, typer.Option(help="Threads.", min=1)] = 2,
    epochs: Annotated[int, typer.Option(help="Most epochs.", min=1)] = 100,
    work: Annotated[Path, typer.Option(help="Where runs and environments lie.")] = Path("var/bench"),
    out: Annotated[Path, typer.Option(help="Result file.")] = Path("bench/results/ranker_peers.json"),
) -> None:
    """Train RecBole's click models and write their AUC, logloss, seconds and rows per second."""
    work = work.resolve()
    folder = work / "ranker"
    folder.mkdir(parents=True, exist_ok=True)
    request = {
        "models": MODELS,
        "seeds": list(range(seeds)),
        "split_seed": SPLIT_SEED,
        "most_epochs": epochs,
        "out": str(folder),
    }
    write_json(folder / "request.json", request)
    try:
        python = ensure("recbole", work / "envs").python
    except EnvironmentFailedError as error:
        raise PeerFailedError("no environment for RecBole", found=str(error)) from None
    done = run_child(
        [str(python), "-m", "bench.adapters.recbole_ranker", str(folder / "request.json")],
        env=environment(threads),
        timeout_seconds=3_600,
        log=folder / "log.txt",
        folder=folder,  # RecBole leaves its own logs where it runs
    )
    if done.code:
        raise PeerFailedError("RecBole failed", where=str(folder / "log.txt"), found=done.reason)
    facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
    models = {f"RecBole {name}": summary(runs) for name, runs in facts["models"].items()}
    write_json(
        out,
        {
            "command": ".venv/bin/python -m bench.ranker_peers",
            "date": f"{datetime.now(UTC):%Y-%m-%d}",
            "machine": asdict(this_machine()),
            "threads": threads,
            "commit": measured_commit(),
            "protocol": " ".join((__doc__ or "").split("RecBole's own protocol: ")[1].split()),
            "models": models,
            "peak_mb": round(facts["peak_mb"]),
            "versions": facts["versions"],
        },
    )
    for name, one in models.items():
        typer.echo(
            f"{name}: AUC {one['auc']['mean']:.4f}, logloss {one['logloss']['mean']:.4f}, "
            f"{one['rows_per_second']['mean']:,.0f} rows/s"
        )


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean and spread over seeds, and the runs."""
    spread = {
        name: {"mean": float(np.mean(values)), "std": float(np.std(values, ddof=1)) if len(values) > 1 else 0.0}
        for name in ("auc", "logloss", "seconds", "rows_per_second")
        if (values := [run[name] for run in runs])
    }
    return {**spread, "runs": runs}


if __name__ == "__main__":
    sys.exit(guarded(app))

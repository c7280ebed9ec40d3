"""RMSE and MAE of held-out ratings on any data, by its own splits, beside simple baselines.

    .venv/bin/python -m bench.ratings --name movielens-100k --set paths.var=var/bench/ratings
    .venv/bin/python -m bench.ratings --name ml-1m-half --set data.source=files --set data.events=events.csv.gz …

Learned from ``train.fit`` (train and valid by default) with the default settings, measured on test once per seed; with
times the splits are by time, so that most test users are new where few users come back.
"""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from core.artifacts import environment, write_json
from core.dataset import load_dataset
from core.progress import SILENT
from core.settings import load_settings
from pipeline.ratings import MODEL, measure_ratings
from training.data.stage import build_dataset
from training.ratings.store import load_rating, train_rating

RESULTS = Path("bench/results")


def measure(overrides: list[str], seed: int) -> dict[str, Any]:
    """Figures of test for one seed."""
    settings = load_settings((), [*overrides, f"train.seed={seed}"])
    artifact = build_dataset(settings, SILENT)
    dataset = load_dataset(artifact)
    trained = train_rating(artifact, dataset, settings, SILENT)
    report = measure_ratings(
        load_rating(trained), dataset, settings.train.fit, "test", float(trained.manifest.tensors["cut"])
    )
    curves = {name: report.pop(name) for name in ("predicted_actual", "calibration")}
    return {"seed": seed, "train_seconds": trained.manifest.metrics["train_seconds"], **report, "curves": curves}


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean and standard deviation (n - 1) over seeds of the model's figures, by slice."""
    found: dict[str, Any] = {}
    for part in runs[0]["models"][MODEL]:
        figures = {name: [run["models"][MODEL][part][name] for run in runs] for name in runs[0]["models"][MODEL][part]}
        found[part] = {
            name: {"mean": float(np.mean(values)), "std": float(np.std(values, ddof=1)) if len(values) > 1 else None}
            for name, values in figures.items()
        }
    return found


def main(argv: list[str] | None = None) -> None:
    """Measures all seeds and writes ``bench/results/ratings-<name>.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(argv)
    runs = []
    for seed in options.seeds:
        runs.append(measure(options.overrides, seed))
        rmse = {name: round(figures["all"]["rmse"], 4) for name, figures in runs[-1]["models"].items()}
        sys.stdout.write(f"seed {seed}: RMSE {rmse}, {runs[-1]['train_seconds']} s\n")
    shown = [
        text for text in options.overrides if not text.startswith(("paths.", "data.events", "data.items", "data.users"))
    ]
    write_json(
        options.out or RESULTS / f"ratings-{options.name}.json",
        {
            "command": f".venv/bin/python -m bench.ratings --name {options.name}",
            "settings": shown,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": environment(),
            "model_over_seeds": summary(runs),
            "runs": runs,
        },
    )


if __name__ == "__main__":
    main()

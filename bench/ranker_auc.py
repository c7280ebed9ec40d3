"""AUC and logloss of "liked" (rating >= 4) on MovieLens-100K, split as RecBole splits for its click models.

    .venv/bin/python -m bench.ranker_auc [--out bench/results/ranker_auc.json]

Protocol: all ratings in the file's order are shuffled by torch's permutation of the seed and cut 8:1:1 (RecBole 1.2.1,
``eval_args: {split: {RS: [.8, .1, .1]}, order: RO, group_by: null}``, ``threshold: {rating: 4}``), user columns age,
gender, occupation, item columns release_year, class. Learned from train alone; valid is measured but nothing is chosen
on it here. The split is random over ratings: other ratings of a test user, later ones among them, are in train.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from core.artifacts import environment, write_json
from core.dataset import SPLITS, load_dataset
from core.progress import SILENT
from core.settings import Settings, load_settings
from pipeline.ratings import MODEL, measure_ratings
from training.data import recbole
from training.data.download import fetch_wheel
from training.data.stage import build_dataset
from training.ratings.store import load_rating, train_rating

DEFAULT_OUT = Path("bench/results/ranker_auc.json")
SHARES = (0.8, 0.1, 0.1)
LIKE_AT = 4.0
SPLIT_SEEDS = (2020, 2021, 2022)
MODEL_SEEDS = (0, 1, 2)
USER_COLUMNS = ("user_id", "age", "gender", "occupation")
ITEM_COLUMNS = ("item_id", "title", "year", "genres")
ANCHORS = {"RecBole DeepFM": {"auc": 0.7861, "log_loss": 0.5594}, "goal": {"auc": 0.793, "log_loss": 0.553}}
METRICS = ("auc", "gauc", "log_loss", "ece", "accuracy", "precision", "recall", "f1", "rmse", "mae")


@dataclass(frozen=True)
class Files:
    """One split as Conch's own files."""

    events: Path
    items: Path
    users: Path


def random_split(n_events: int, seed: int) -> np.ndarray:
    """Split codes ``(events,)`` in file order, as RecBole draws them: places in ``SPLITS``.

    All parts but the first are rounded down (``Dataset._calcu_split_ids``).
    """
    order = torch.randperm(n_events, generator=torch.Generator().manual_seed(seed)).numpy()
    rest = [int(share * n_events) for share in SHARES[1:]]
    codes = np.zeros(n_events, dtype=np.uint8)
    ends = np.cumsum([n_events - sum(rest), *rest])
    codes[order[ends[0] : ends[1]]], codes[order[ends[1] :]] = 1, 2
    return codes


def write_split(wheel: Path, folder: Path, seed: int) -> Files:
    """Writes events with a ``split`` column, items and users as CSV."""
    folder.mkdir(parents=True, exist_ok=True)
    events, items, users = (table.columns for table in recbole.read_atomic(wheel))
    split = pa.array(np.array(SPLITS)[random_split(events.num_rows, seed)])
    files = Files(*(folder / f"{name}.csv" for name in ("events", "items", "users")))
    named = events.select(["user_id", "item_id", "timestamp", "value"]).append_column("split", split)
    for path, table in ((files.events, named), (files.items, items.select(ITEM_COLUMNS)),
                        (files.users, users.select(USER_COLUMNS))):  # fmt: skip
        with path.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            writer.writerow(table.column_names)
            writer.writerows(zip(*(column.to_pylist() for column in table.columns), strict=True))
    return files


def measure(var: Path, files: Files, seed: int) -> dict[str, Any]:
    """Trains on train with one seed; figures of valid and test, and seconds."""
    chosen = settings_for(var, files, seed)
    artifact = build_dataset(chosen, SILENT)
    dataset = load_dataset(artifact)
    started = time.perf_counter()
    trained = train_rating(artifact, dataset, chosen, SILENT)
    seconds = time.perf_counter() - started
    model, cut = load_rating(trained), float(trained.manifest.tensors["cut"])
    figures: dict[str, Any] = {"train_seconds": round(seconds, 2)}
    for split in ("valid", "test"):
        report = measure_ratings(model, dataset, ("train",), split, cut)
        figures[split] = {name: report["models"][MODEL]["all"][name] for name in METRICS}
        figures[split]["baselines_rmse"] = {
            name: values["all"]["rmse"] for name, values in report["models"].items() if name != MODEL
        }
    return figures


def settings_for(var: Path, files: Files, seed: int) -> Settings:
    """Defaults, but for the files, the seed and the threshold."""
    overrides = [
        "data.source=files", f'data.events="{files.events}"', f'data.items="{files.items}"',
        f'data.users="{files.users}"', f'paths.var="{var}"', f"train.seed={seed}", 'train.fit=["train"]',
        f"rating.like_at={LIKE_AT}",
    ]  # fmt: skip
    return load_settings((), overrides)


def summary(runs: list[dict[str, Any]], split: str) -> dict[str, Any]:
    """Mean and spread (standard deviation, n - 1) over runs of each metric."""
    values = {name: np.array([run[split][name] for run in runs]) for name in METRICS}
    return {name: {"mean": float(v.mean()), "std": float(v.std(ddof=1))} for name, v in values.items()}


def main(argv: list[str] | None = None) -> None:
    """Measures three model seeds on the protocol's split, then one seed on two other splits."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT)
    parser.add_argument("--var", type=Path, default=Path("var/bench/ranker_auc"))
    options = parser.parse_args(argv)
    wheel = fetch_wheel(recbole.REQUIREMENT, recbole.WHEEL, recbole.WHEEL_SHA256, options.var / "cache", SILENT)
    runs: list[dict[str, Any]] = []
    for split_seed in SPLIT_SEEDS:
        var = options.var / f"split_{split_seed}"
        files = write_split(wheel, var, split_seed)
        for seed in MODEL_SEEDS if split_seed == SPLIT_SEEDS[0] else MODEL_SEEDS[:1]:
            runs.append({"split_seed": split_seed, "seed": seed, **measure(var, files, seed)})
            test = runs[-1]["test"]
            sys.stdout.write(
                f"split {split_seed}, seed {seed}: test AUC {test['auc']:.4f}, logloss {test['log_loss']:.4f}\n"
            )
    protocol = [run for run in runs if run["split_seed"] == SPLIT_SEEDS[0]]
    by_split = [run for run in runs if run["seed"] == MODEL_SEEDS[0]]
    write_json(
        options.out,
        {
            "command": ".venv/bin/python -m bench.ranker_auc",
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": environment(),
            "protocol": " ".join((__doc__ or "").split("Protocol: ")[1].split()),
            "anchors": ANCHORS,
            "model_seeds_on_split_2020": {split: summary(protocol, split) for split in ("valid", "test")},
            "three_splits": {split: summary(by_split, split) for split in ("valid", "test")},
            "runs": runs,
        },
    )


if __name__ == "__main__":
    main()

"""One trained recall model by itself, without export and release: for catalogues and widths where those take long.

    .venv/bin/conch dataset --config config/gowalla.toml --set data.source=files --set data.events=events.csv.gz
    .venv/bin/conch train mix --config config/gowalla.toml --set data.source=files --set data.events=events.csv.gz
    .venv/bin/python -m bench.recall_alone mix --name gowalla-mix --lists recommendations.csv

Scores the newest artefact of the model on the test split over the whole catalogue (the trained module answers, padded
histories in batches) and writes bench/results/recall-<name>.json; ``--lists`` is what a foreign evaluator can read.
"""

from __future__ import annotations

import csv
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from bench.machine import measured_commit, this_machine
from core.artifacts import Artifact, latest_artifact, parent_artifact, write_json
from core.bootstrap import standard_error
from core.dataset import Dataset, load_dataset
from core.histories import pad
from core.metrics import accuracy_metrics, hits
from core.settings import ROOT
from pipeline.question import Question, held_out
from training.models.recall import load_model
from training.requests import user_codes

BATCH_USERS = 256


def lists_of(artifact: Artifact, dataset: Dataset, question: Question, fit: tuple[str, ...], k: int) -> np.ndarray:
    """Item rows int64 ``(U, k)``, best first, of the users of ``question``; their fitted items are left out."""
    model = load_model(artifact)
    histories = dataset.histories(fit)
    found = np.full((len(question.user_rows), k), -1, dtype=np.int64)
    order = np.argsort(histories.lengths[question.user_rows], kind="stable")  # little is padded
    with torch.no_grad():
        for start in range(0, len(order), BATCH_USERS):
            places = order[start : start + BATCH_USERS]
            users = question.user_rows[places]
            padded = pad(histories.select(users), dataset.n_items)
            parts = (padded.rows, padded.ages, padded.values, padded.kinds, padded.exclude)
            rows, _ = model(*map(torch.from_numpy, parts), user_codes(dataset, users))
            found[places] = rows[:, :k].numpy()
    return found


def main(
    model: Annotated[str, typer.Argument(help="Kind of the artefact: mf, gat, spectral, ease, mix.")],
    name: Annotated[str, typer.Option(help="Name of the result file.")],
    var: Annotated[Path, typer.Option(help="Where the artefacts lie.")] = Path("var"),
    k: Annotated[int, typer.Option(help="Length of the lists.")] = 20,
    lists: Annotated[Path | None, typer.Option(help="CSV to write: user_id,item_id,rank.")] = None,
) -> None:
    """Scores the newest recall model of a kind on the test split."""
    artifact = latest_artifact(var, model)
    dataset = load_dataset(parent_artifact(artifact, var, "dataset"))
    fit = tuple(artifact.manifest.settings["train"]["fit"])
    question = held_out(dataset, fit, "test")
    started = time.perf_counter()
    rows = lists_of(artifact, dataset, question, fit, k)
    seconds = time.perf_counter() - started
    values = accuracy_metrics(hits(rows, question.truth), question.truth.sizes, (k,))
    metrics: dict[str, Any] = {metric: round(float(of.mean()), 5) for metric, of in values.items()}
    metrics |= {f"{metric}_se": round(standard_error(of), 5) for metric, of in values.items()}
    if lists is not None:
        with lists.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            writer.writerow(("user_id", "item_id", "rank"))
            for user, items in zip(dataset.users.ids[question.user_rows], rows, strict=True):
                writer.writerows((user, dataset.items.ids[item], at + 1) for at, item in enumerate(items) if item >= 0)
    result = {
        "command": f".venv/bin/python -m bench.recall_alone {model} --name {name}",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": this_machine().line,
        "commit": measured_commit(),
        "name": name,
        "seed": artifact.manifest.seed,
        "settings": artifact.manifest.settings,
        "train_seconds": artifact.manifest.metrics.get("train_seconds"),
        "recommend_seconds": round(seconds, 1),
        "users": len(question.user_rows),
        "metrics": metrics,
    }
    target = ROOT / "bench" / "results" / f"recall-{name}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    write_json(target, result)
    sys.stdout.write(f"{name}: {metrics} in {target}\n")


if __name__ == "__main__":
    typer.run(main)

"""The same lists scored by somebody else's evaluator: the two must agree."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.scoring import KS, LONGEST, Question
from core.dataset import SPLITS, Dataset

TOLERANCE = 2e-5
"""Both sides round to five decimals."""


@dataclass(frozen=True)
class Agreement:
    """What came of one check.

    Attributes:
        name: Row.
        agrees: Every metric within the tolerance.
        widest: Largest difference, NaN where the evaluator failed.
        note: Its message, where it failed.
    """

    name: str
    agrees: bool
    widest: float
    note: str = ""


def check(
    name: str,
    lists: np.ndarray,
    own: dict[str, dict[str, float]],
    *,
    asked: Question,
    dataset: Dataset,
    evaluator: Path,
    events: Path,
    fit: Sequence[str],
    mask: Sequence[str],
    folder: Path,
) -> Agreement:
    """Runs ``evaluator --events E --recommendations R --fit A,B --mask C,D --ks 10,20,100`` and compares.

    Args:
        name: Row.
        lists: Item rows ``(Q, k)``.
        own: Our means per group.
        asked: The question that the lists answer.
        dataset: For external ids.
        evaluator: A program that prints JSON with ``warm`` and ``all``, each with ``ndcg@10`` and so on.
        events: The raw events that it reads.
        fit: Splits learned from.
        mask: Splits masked.
        folder: Where the recommendations file goes.
    """
    file = folder / "recommendations.csv"
    write_recommendations(file, lists, asked, dataset)
    command = [
        sys.executable, str(evaluator), "--events", str(events), "--recommendations", str(file),
        "--fit", ",".join(fit), "--mask", ",".join(mask), "--ks", ",".join(str(k) for k in KS),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    file.unlink()
    try:
        theirs = json.loads(done.stdout)
    except json.JSONDecodeError:
        return Agreement(name, False, float("nan"), (done.stderr or done.stdout).strip()[-200:])
    gaps = [
        abs(theirs[group][f"{metric}@{k}"] - own[group][f"{metric}@{k}"])
        for group in ("warm", "all")
        if theirs[group].get("users")
        for metric in ("ndcg", "recall")
        for k in KS
    ]
    users = all(theirs[group]["users"] == len(asked.groups[group].places) for group in ("warm", "all"))
    note = "" if users else "asks about other users"
    return Agreement(name, users and max(gaps) <= TOLERANCE and done.returncode == 0, max(gaps), note)


def write_recommendations(file: Path, lists: np.ndarray, asked: Question, dataset: Dataset) -> None:
    """CSV with user_id,item_id,rank."""
    users, items = dataset.users.ids, dataset.items.ids
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(("user_id", "item_id", "rank"))
        for user, row in zip(asked.problem.query_users, lists[:, :LONGEST], strict=True):
            writer.writerows((users[user], items[item], rank + 1) for rank, item in enumerate(row) if item >= 0)


def write_events(file: Path, dataset: Dataset) -> Path:
    """The dataset's events as CSV with user_id,item_id,split, for data that came without a file of its own."""
    events = dataset.events
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(("user_id", "item_id", "split"))
        names = np.array(SPLITS)[events.splits]
        writer.writerows(
            zip(dataset.users.ids[events.user_rows], dataset.items.ids[events.item_rows], names, strict=True)
        )
    return file

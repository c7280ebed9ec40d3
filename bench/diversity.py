"""What variety costs: NDCG@10 against intra-list diversity, coverage, Gini and novelty, for MMR and DPP.

    .venv/bin/python -m bench.diversity --release ml-1m-half=VAR --chosen-on ml-1m-half=VAR [--out …/diversity.json]

``--chosen-on`` names a folder (paths.var) whose newest release has learned from train alone: it is measured on valid,
and the strength is chosen there, the largest one that costs at most ``COST`` of NDCG@10. ``--release`` names one that
has learned from train and valid: it is measured on test, once. Both may repeat, for several data sets.
"""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.machine import this_machine
from core.artifacts import environment, latest_artifact, parent_artifact, write_json
from core.dataset import load_dataset
from core.errors import SettingsError
from pipeline.tradeoff import measure_tradeoff
from serving.local import LocalPipeline

DEFAULT_OUT = Path("bench/results/diversity.json")
STRENGTHS = (0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0)
K = 10
COST = 0.02
"""Share of NDCG@10 that variety may cost on valid."""


def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chosen-on", action="append", default=[], metavar="NAME=VAR")
    parser.add_argument("--release", action="append", default=[], metavar="NAME=VAR")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT)
    given = parser.parse_args(argv)
    results: dict[str, Any] = {}
    for split, entries in (("valid", given.chosen_on), ("test", given.release)):
        for entry in entries:
            name, _, var = entry.partition("=")
            results.setdefault(name, {})[split] = _measure(Path(var), split)
    for name, of in results.items():
        if "valid" in of:
            of["chosen"] = {method: choose(curve) for method, curve in of["valid"]["curves"].items()}
            sys.stdout.write(f"{name}: {of['chosen']}\n")
    report = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "command": "python -m bench.diversity --chosen-on NAME=VAR --release NAME=VAR",
        "machine": this_machine().line,
        "environment": environment(),
        "cost": COST,
        "results": results,
    }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(given.out, report)
    sys.stdout.write(f"wrote {given.out}\n")


def choose(curve: list[dict[str, Any]]) -> float:
    """The largest strength up to which no strength costs more than ``COST`` of the ranking's own NDCG."""
    plain = curve[0][f"ndcg@{K}"]
    chosen = 0.0
    for entry in curve:
        if entry[f"ndcg@{K}"] < (1 - COST) * plain:
            break
        chosen = float(entry["diversity"])
    return chosen


def _measure(var: Path, split: str) -> dict[str, Any]:
    release = latest_artifact(var, "release")
    fit = tuple(release.manifest.tensors["fit"])
    if split in fit:
        raise SettingsError(
            f"this release has learned from {split}", where=str(var), expected=f"fit without {split}", found=str(fit)
        )
    dataset = load_dataset(parent_artifact(release, var, "dataset"))
    with LocalPipeline(release.path, threads=1) as pipeline:
        return measure_tradeoff(pipeline, dataset, fit=fit, split=split, target="any", k=K, strengths=STRENGTHS)


if __name__ == "__main__":
    main()

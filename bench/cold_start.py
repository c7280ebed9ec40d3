"""Cold items and cold users, measured: ``python -m bench.cold_start --var VAR --name NAME``."""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.cold_items import FIT, among_cold, few_events, fit, in_catalogue, natural
from bench.cold_split import Values, hold_out_items
from bench.cold_transfer import transfer
from bench.cold_users import strangers
from core.artifacts import code_commit, environment, latest_artifact, write_json
from core.bootstrap import paired_bootstrap
from core.dataset import Dataset, load_dataset
from core.settings import load_settings

NAMES = ("mf", "gat")
SUPPORTS = (0.0, 1.0, 3.0, 10.0)
KEPT = (1, 3, 10)
RESULTS = Path(__file__).parent / "results" / "cold_start.json"


def measure(dataset: Dataset, seeds: tuple[int, ...], texts: tuple[str, ...], var: Path) -> dict[str, Any]:
    """Everything on one dataset, as plain JSON values: means over seeds, differences pooled over users and seeds."""
    settings = load_settings((), (f'paths.var="{var}"',))
    cold: list[dict[str, Values]] = []
    catalogue, few, users, warm, moved, facts = [], [], [], [], [], []
    for seed in seeds:
        fitted = hold_out_items(dataset, FIT, seed).fitted
        models = {name: fit(name, dataset, fitted, settings, seed) for name in NAMES}
        cold.append(among_cold(dataset, settings, models, seed, texts))
        catalogue.append(in_catalogue(dataset, settings, models, seed))
        warm.append(natural(dataset, settings, NAMES, seed))
        few.append({f"{n} events": few_events(dataset, settings, NAMES, seed, n, SUPPORTS) for n in KEPT})
        found, told = strangers(dataset, settings, NAMES, seed)
        users.append(found)
        facts.append(told)
        moved.append(transfer(dataset, settings, seed))
    return {
        "cold items among themselves": _table(cold, "attribute-kNN"),
        "whole catalogue, a tenth of the items unknown": _mean(catalogue),
        "warm users, nothing held out": {name: _table([found[name] for found in warm], "without") for name in NAMES},
        "items with few events": _mean(few),
        "users held out whole": _table(users, "0 events, popularity"),
        "newcomers, held out while training": facts,
        "transfer to a small catalogue": _mean(moved),
    }


def _table(seeds: list[dict[str, Values]], base: str) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    rows: dict[str, Any] = {}
    reference = np.concatenate([found[base].ndcg for found in seeds])
    for name in seeds[0]:
        values = np.concatenate([found[name].ndcg for found in seeds])
        gap = paired_bootstrap(values, reference, rng)
        rows[name] = {
            "ndcg@10": round(float(values.mean()), 4),
            "recall@10": round(float(np.concatenate([found[name].recall for found in seeds]).mean()), 4),
            f"ndcg@10 minus {base}": [round(part, 4) for part in (gap.mean, gap.low, gap.high)],
        }
    rows["users"] = len(reference)
    return rows


def _mean(seeds: list[Any]) -> Any:
    if isinstance(seeds[0], dict):
        return {key: _mean([entry[key] for entry in seeds]) for key in seeds[0]}
    return round(float(np.mean(seeds)), 4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--var", type=Path, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--texts", nargs="+", default=["none", "ngrams"])
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    dataset = load_dataset(latest_artifact(options.var, "dataset"))
    report = json.loads(options.out.read_text()) if options.out.is_file() else {}
    report[options.name] = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "commit": code_commit(),
        "machine": environment(),
        "seeds": options.seeds,
        **measure(dataset, tuple(options.seeds), tuple(options.texts), options.var),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(options.out, report)


if __name__ == "__main__":
    main()

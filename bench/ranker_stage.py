"""The ranker beside its plainest peer, the blend of recall scores plus a share of the item's mean value, and its speed.

    .venv/bin/python -m bench.ranker_stage --name ml-1m-half --set data.source=files --set data.events=events.csv.gz …

Ours is fitted as `conch train` does. The peer has the same candidates and the same blend; its share of the mean value
is chosen on the label windows for the very target that is measured. Both are scored on the test split: any later event,
and only events whose value is at least ``--liked-from``. Speed is (user, candidate) pairs a second through forward,
backward and step of the network.
"""

from __future__ import annotations

import shlex
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from bench.machine import measured_commit, shown, this_machine
from core.artifacts import latest_artifact, write_json
from core.bootstrap import standard_error
from core.dataset import Dataset, Events, load_dataset
from core.progress import SILENT
from core.settings import Settings
from pipeline.cli import guarded
from pipeline.options import ConfigOption, SetOption, settings_from
from training.models.ranker import Ranker
from training.models.ranker_shape import STATISTICS
from training.ranking.examples import Batch, Examples, build_examples
from training.ranking.fit import fit_ranker, fitted_tables, look_at
from training.ranking.scoring import Scorer, by_base, by_blend, by_correction, ndcg_of_users, scores_of
from training.ranking.sources import RecallSet, fit_recall_set
from training.ranking.training import train_network, with_hits
from training.ranking.windows import Window, label_windows

SHARES = (0.0, 0.125, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0)
"""Weights of the mean value that are tried for the peer, beside a blend of standardised scores."""
SPEED_EPOCHS = 3

app = typer.Typer(add_completion=False)


def hits_of(target: str, dataset: Dataset, events: Events, liked_from: float) -> np.ndarray:
    """Which events count, bool ``(events,)``."""
    if target == "any":
        return np.ones(len(events), dtype=bool)
    return np.nan_to_num(events.raw_values, nan=-np.inf) >= liked_from


def by_blend_and_mean(ranker: Ranker, share: float) -> Scorer:
    """The peer."""
    blend = by_blend(ranker.blend.tolist())
    column = 3 * len(ranker.shape.sources) + STATISTICS.index("mean_value")

    def score(batch: Batch) -> torch.Tensor:
        return blend(batch) + share * batch.features[..., column]

    return score


def by_ranker(ranker: Ranker) -> Scorer:
    """Ours, as served."""
    base, correction = by_base(ranker), by_correction(ranker)
    return lambda batch: base(batch) + ranker.strength * correction(batch)


def chosen_share(ranker: Ranker, looked: Sequence[Examples]) -> float:
    """The share with the highest NDCG@10 over the windows' users."""
    values = {
        share: np.concatenate(
            [ndcg_of_users(scores_of(by_blend_and_mean(ranker, share), part), part) for part in looked]
        )
        for share in SHARES
    }
    return max(values, key=lambda share: values[share].mean())


def one_seed(dataset: Dataset, settings: Settings, seed: int, liked_from: float) -> dict[str, Any]:
    """NDCG@10 of every test user by target and scorer, what the peer chose, and rows a second."""
    fitted = dataset.events.of_splits(settings.train.fit)
    recall = fit_recall_set(dataset, fitted, settings, seed, SILENT)
    ranker = fit_ranker(dataset, settings, seed=seed, recall=recall).model
    tables = fitted_tables(dataset, fitted, recall, settings, seed)
    rng = np.random.default_rng(seed)
    windows = label_windows(
        fitted, count=settings.ranker.windows, has_times=dataset.has_times, share=settings.ranker.window_share, rng=rng
    )
    looks = [look_at(dataset, window, settings, seed, rng, SILENT, fit_recall_set) for window in windows]
    test = Window("test", fitted, dataset.events.of_splits(("test",)))
    found: dict[str, Any] = {"shares": {}, "users": {}}
    for target in ("any", "liked"):
        parts = [
            _examples(dataset, look.window, look.recall, look.tables, target, liked_from) for look in looks
        ]  # fmt: skip
        share = chosen_share(ranker, parts)
        asked = _examples(dataset, test, recall, tables, target, liked_from)
        found["shares"][target] = share
        found["users"][target] = {
            "blend": ndcg_of_users(scores_of(by_blend(ranker.blend.tolist()), asked), asked),
            "blend + item mean": ndcg_of_users(scores_of(by_blend_and_mean(ranker, share), asked), asked),
            "ranker": ndcg_of_users(scores_of(by_ranker(ranker), asked), asked),
        }
    found["rows_per_second"] = _speed(ranker, [look.examples for look in looks], settings, seed)
    found["value_weight"], found["strength"] = float(ranker.value_weight), float(ranker.strength)
    return found


def _examples(
    dataset: Dataset, window: Window, recall: RecallSet, tables: Any, target: str, liked_from: float
) -> Examples:
    relevant = hits_of(target, dataset, window.future, liked_from)
    rng = np.random.default_rng(0)
    return build_examples(dataset, window, recall, tables, relevant, max_users=10**9, rng=rng)


def _speed(ranker: Ranker, examples: Sequence[Examples], settings: Settings, seed: int) -> float:
    rows = sum(batch.rows.numel() for batch in with_hits(examples)) * SPEED_EPOCHS
    generator = torch.Generator().manual_seed(seed)
    begun = time.perf_counter()
    train_network(ranker, examples, settings.ranker, epochs=SPEED_EPOCHS, generator=generator)
    return rows / (time.perf_counter() - begun)


@app.command()
def ranker_stage(
    name: Annotated[str, typer.Option(help="Name of the result file.")],
    seeds: Annotated[int, typer.Option(help="Seeds 0 to N-1.", min=1)] = 3,
    liked_from: Annotated[float, typer.Option(help="Values from here on are liked.")] = 4.0,
    out: Annotated[Path, typer.Option(help="Where the result file goes.")] = Path("bench/results"),
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Measure on the newest dataset under ``paths.var`` (`conch dataset` makes one)."""
    settings = settings_from(config, set_)
    torch.set_num_threads(settings.train.threads or torch.get_num_threads())
    dataset = load_dataset(latest_artifact(settings.paths.var, "dataset"))
    runs = []
    for seed in range(seeds):
        runs.append(one_seed(dataset, settings, seed, liked_from))
        typer.echo(f"seed {seed}: {runs[-1]['rows_per_second']:,.0f} rows/s, shares {runs[-1]['shares']}")
    targets = {}
    for target in ("any", "liked"):
        means = {
            scorer: np.mean([run["users"][target][scorer] for run in runs], axis=0)
            for scorer in runs[0]["users"][target]
        }
        ours = means["ranker"]
        targets[target] = {
            "users": len(ours),
            "ndcg@10": {scorer: float(values.mean()) for scorer, values in means.items()},
            "ranker minus": {
                scorer: {"difference": float((ours - values).mean()), "standard_error": standard_error(ours - values)}
                for scorer, values in means.items()
                if scorer != "ranker"
            },
            "peer's share of the mean value": [run["shares"][target] for run in runs],
        }
    write_json(
        out / f"ranker-stage-{name}.json",
        {
            "command": shlex.join(["python", "-m", "bench.ranker_stage", *shown(sys.argv[1:])]),
            "date": datetime.now(UTC).date().isoformat(),
            "machine": asdict(this_machine()),
            "threads": torch.get_num_threads(),
            "commit": measured_commit(),
            "seeds": seeds,
            "liked_from": liked_from,
            "targets": targets,
            "training rows per second": {
                "median": statistics.median(run["rows_per_second"] for run in runs),
                "all": [run["rows_per_second"] for run in runs],
            },
            "value_weight": [run["value_weight"] for run in runs],
            "strength": [run["strength"] for run in runs],
        },
    )


if __name__ == "__main__":
    sys.exit(guarded(app))

"""How fast the recall graph finds candidates in large catalogues: fp32 against compressed, in turns, one thread.

Vectors are made: clusters, a spectrum that decays, lengths that spread, as those of trained models are. The graphs are
the served ones, exported as any release's are: history look-ups, exclusion and the best K included. ``recall_of_fp32``
compares rows with those of the fp32 graph, which is exact; ``recall_beyond`` does so where the best ``BEYOND`` items of
every user are excluded, as those of users with long histories are. What is chosen from users' vectors (blocks to scan)
is chosen from other histories than those asked.
"""

from __future__ import annotations

import shlex
import sys
import tempfile
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from bench.machine import measured_commit, this_machine
from compression.candidate import served_form
from compression.recall import compress
from compression.recipe import all_recipes
from core.artifacts import write_json
from core.tensors import recall_step
from export.onnx_graph import export_graph
from export.parity import Feeds, open_session
from pipeline.cli import guarded
from training.models.event_weights import EventWeighting
from training.models.recall_base import popularity_bias
from training.models.spectral_model import SpectralRecall

app = typer.Typer(add_completion=False)
CLUSTERS, DECAY, FLOOR = 200, 8.0, 0.02
HISTORY = 32
OPSET = 20
QUESTIONS = 200
"""Users whose candidates are compared."""
BEYOND = 1_000
FITTED_USERS = 4_000
"""Users of the fit, whose vectors the compressor sees."""
WARM_UP = 3
PARTS = 5
"""Into which the timed turns are divided, for the spread of the median."""


def made_model(items: int, dimension: int, candidates: int, rng: np.random.Generator) -> SpectralRecall:
    """A spectral model over made vectors: the served graph with one look-up and one scan."""
    spectrum = (np.exp(-np.arange(dimension) / DECAY) + FLOOR).astype(np.float32)
    centres = rng.standard_normal((CLUSTERS, dimension), dtype=np.float32)
    vectors = centres[rng.integers(0, CLUSTERS, items)] + rng.standard_normal((items, dimension), dtype=np.float32)
    vectors *= 0.7 * spectrum * (0.5 + rng.gamma(2.0, 0.5, (items, 1))).astype(np.float32)
    table = torch.from_numpy(np.concatenate([vectors, np.zeros((1, dimension), np.float32)]))
    popularity = rng.zipf(1.3, items).clip(1, 100_000).astype(np.float64)
    bias = torch.from_numpy(popularity_bias(popularity, 0.05))
    weighting = EventWeighting(0.0, 1.0, 0.0, 0.0, 1.0)
    return SpectralRecall(table, table.clone(), bias, bias.clone(), weighting=weighting, candidates=candidates).eval()


def made_requests(items: int, batch: int, rng: np.random.Generator) -> Feeds:
    """Histories of ``HISTORY`` items, which are left out of the answer."""
    rows = rng.integers(0, items, (batch, HISTORY))
    zeros = np.zeros((batch, HISTORY), np.float32)
    return {
        "history_rows": rows,
        "history_ages": zeros,
        "history_values": zeros,
        "history_kinds": np.zeros((batch, HISTORY), np.int64),
        "exclude_rows": rows,
        "user_features": np.zeros((batch, 1), np.int64),
    }


@app.command()
def scan(
    items: Annotated[int, typer.Option(help="Catalogue size.")] = 100_000,
    dimension: Annotated[int, typer.Option(help="Width of the fp32 vectors.")] = 64,
    recipes: Annotated[str, typer.Option(help="Recipes, comma-separated.")] = "int8-rows,blocks-rotated-int8-rows",
    candidates: Annotated[int, typer.Option(help="K.")] = 100,
    rounds: Annotated[int, typer.Option(help="Timed turns.")] = 60,
    batches: Annotated[str, typer.Option(help="Batch sizes, comma-separated.")] = "1,16",
    out: Annotated[Path, typer.Option(help="Where the result file goes.")] = Path("bench/results"),
) -> None:
    """Time fp32 and compressed recall graphs; writes bench/results/scan-<items>.json."""
    rng = np.random.default_rng(0)
    model = made_model(items, dimension, candidates, rng)
    fitted = torch.randint(0, items, (FITTED_USERS, HISTORY), generator=torch.Generator().manual_seed(1))
    users = {id(model): model.history_vectors[fitted].sum(1)}
    named = {recipe.name: recipe for recipe in all_recipes()}
    rows: dict[str, dict[str, Any]] = {"fp32": {}}
    modules: dict[str, torch.nn.Module] = {"fp32": model}
    for name in recipes.split(","):
        started = time.perf_counter()
        made = compress("recall_spectral", model, users, named[name], 0)
        modules[name] = served_form(made.module, "onnxruntime")
        passes = {one.name: dict(one.parameters) for one in made.passes}
        rows[name] = {"passes": passes, "build_seconds": round(time.perf_counter() - started, 1)}
    sessions = opened(modules, items, rng, rows)
    for batch in map(int, batches.split(",")):
        for name, times in timed(sessions, items, batch, rounds, rng).items():
            rows[name].setdefault("latency", {})[str(batch)] = times
    asked = [made_requests(items, 1, rng) for _ in range(QUESTIONS)]
    beyond = [excluding_best(model, feed) for feed in asked]
    for name, session in sessions.items():
        rows[name]["recall_of_fp32"] = recall(session, sessions["fp32"], asked)
        rows[name]["first_10_kept"] = recall(session, sessions["fp32"], asked, first=10)
        rows[name]["recall_beyond"] = recall(session, sessions["fp32"], beyond)
    result = {
        "title": f"Recall over {items:,} items, D {dimension}, K {candidates}, ONNX Runtime, one thread",
        "data": f"made: {CLUSTERS} clusters, spectrum exp(-d/{DECAY:g}) + {FLOOR}, lengths 0.5 + gamma(2, 0.5)",
        "rows": rows,
        "rounds": rounds,
        "questions": QUESTIONS,
        "beyond": BEYOND,
        "machine": asdict(this_machine()),
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "commit": measured_commit(),
        "command": "python -m bench.scan " + shlex.join(sys.argv[1:]),
    }
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / f"scan-{items}.json", result)
    for name, row in rows.items():
        shown = ", ".join(
            f"{key} {row[key]}" for key in ("recall_of_fp32", "first_10_kept", "recall_beyond", "latency")
        )
        typer.echo(f"{name:28s} {row['file_bytes'] / 1e6:8.1f} MB, {shown}")


def opened(
    modules: dict[str, torch.nn.Module], items: int, rng: np.random.Generator, rows: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """Exports the modules and opens the files, whose sizes go into ``rows``."""
    example = {name: torch.from_numpy(array) for name, array in made_requests(items, 2, rng).items()}
    sessions = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, module in modules.items():
            path = Path(folder) / f"{name}.onnx"
            export_graph(module, recall_step("spectral"), example, path, opset=OPSET, max_batch=64)
            sessions[name], rows[name]["file_bytes"] = open_session(path), path.stat().st_size
            path.unlink()
    return sessions


def excluding_best(model: SpectralRecall, feed: Feeds) -> Feeds:
    """The same request with the user's best ``BEYOND`` items excluded too."""
    parts = ("history_rows", "history_ages", "history_values", "history_kinds", "user_features")
    with torch.no_grad():
        best = model.scores(*(torch.from_numpy(feed[name]) for name in parts)).topk(BEYOND, dim=1).indices
    return feed | {"exclude_rows": np.concatenate([feed["exclude_rows"], best.numpy()], 1)}


def recall(session: Any, exact: Any, feeds: list[Feeds], first: int | None = None) -> float:
    """The mean share of the exact graph's rows, or of its ``first`` ones, that the other finds."""
    pairs = ((session.run(None, feed)[0][0], exact.run(None, feed)[0][0][:first]) for feed in feeds)
    return round(float(np.mean([len(np.intersect1d(found, wanted)) / len(wanted) for found, wanted in pairs])), 4)


def timed(
    sessions: dict[str, Any], items: int, batch: int, rounds: int, rng: np.random.Generator
) -> dict[str, dict[str, Any]]:
    """Milliseconds of each session at one batch size, in turns; how many times faster than fp32 in the same turn.

    Ranges are those of the medians over ``PARTS`` parts of the turns.
    """
    times: dict[str, list[float]] = {name: [] for name in sessions}
    for _ in range(rounds + WARM_UP):
        feed = made_requests(items, batch, rng)
        for name, session in sessions.items():
            started = time.perf_counter()
            session.run(None, feed)
            times[name].append(1000 * (time.perf_counter() - started))
    kept = {name: np.array(of[WARM_UP:]) for name, of in times.items()}
    return {
        name: {
            "p50_ms": round(float(np.median(of)), 3),
            "p50_range_ms": medians(of),
            "p99_ms": round(float(np.quantile(of, 0.99)), 3),
            "times_faster": round(float(np.median(kept["fp32"] / of)), 2),
            "times_faster_range": medians(kept["fp32"] / of),
        }
        for name, of in kept.items()
    }


def medians(values: np.ndarray) -> list[float]:
    """Least and largest median of ``PARTS`` parts."""
    found = [float(np.median(part)) for part in np.array_split(values, PARTS)]
    return [round(min(found), 3), round(max(found), 3)]


if __name__ == "__main__":
    sys.exit(guarded(app))

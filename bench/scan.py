"""How fast the recall graph finds candidates in large catalogues: fp32 against compressed, in turns, one thread.

Vectors are made: clusters, a spectrum that decays, lengths that spread, as those of trained models are. The graphs are
the served ones, exported as any release's are; ``overlap`` compares rows with those of the fp32 graph, which is exact.
"""

from __future__ import annotations

import shlex
import statistics
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
    recipes: Annotated[str, typer.Option(help="Recipes, comma-separated.")] = "int8-columns,rank37.5-int8-columns",
    candidates: Annotated[int, typer.Option(help="K.")] = 100,
    rounds: Annotated[int, typer.Option(help="Timed turns.")] = 60,
    batches: Annotated[str, typer.Option(help="Batch sizes, comma-separated.")] = "1,16",
    out: Annotated[Path, typer.Option(help="Where the result file goes.")] = Path("bench/results"),
) -> None:
    """Time fp32 and compressed recall graphs; writes bench/results/scan-<items>.json."""
    rng = np.random.default_rng(0)
    model = made_model(items, dimension, candidates, rng)
    spec = recall_step("spectral")
    samples = torch.randint(0, items, (4_000, HISTORY), generator=torch.Generator().manual_seed(0))
    users = {id(model): model.history_vectors[samples].sum(1)}
    named = {recipe.name: recipe for recipe in all_recipes()}
    modules: dict[str, torch.nn.Module] = {"fp32": model}
    for name in recipes.split(","):
        modules[name] = served_form(compress(spec.name, model, users, named[name], 0).module, "onnxruntime")
    example = {name: torch.from_numpy(array) for name, array in made_requests(items, 2, rng).items()}
    sessions, sizes = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for name, module in modules.items():
            path = Path(folder) / f"{name}.onnx"
            export_graph(module, spec, example, path, opset=OPSET, max_batch=64)
            sessions[name], sizes[name] = open_session(path), path.stat().st_size
    rows: dict[str, dict[str, Any]] = {name: {"file_bytes": size, "latency": {}} for name, size in sizes.items()}
    for batch in map(int, batches.split(",")):
        for name, times in timed(sessions, items, batch, rounds, rng).items():
            rows[name]["latency"][str(batch)] = times
    asked = [made_requests(items, 1, rng) for _ in range(QUESTIONS)]
    wanted = [sessions["fp32"].run(None, feed)[0][0] for feed in asked]
    for name, session in sessions.items():
        found = [session.run(None, feed)[0][0] for feed in asked]
        shared = [len(np.intersect1d(a, b)) / candidates for a, b in zip(found, wanted, strict=True)]
        rows[name]["recall_of_fp32"] = round(float(np.mean(shared)), 4)
    result = {
        "title": f"Recall over {items:,} items, D {dimension}, K {candidates}, ONNX Runtime, one thread",
        "data": f"made: {CLUSTERS} clusters, spectrum exp(-d/{DECAY:g}) + {FLOOR}, lengths 0.5 + gamma(2, 0.5)",
        "rows": rows,
        "rounds": rounds,
        "machine": asdict(this_machine()),
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "commit": measured_commit(),
        "command": "python -m bench.scan " + shlex.join(sys.argv[1:]),
    }
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / f"scan-{items}.json", result)
    for name, row in rows.items():
        typer.echo(
            f"{name:28s} {row['file_bytes'] / 1e6:8.1f} MB, recall {row['recall_of_fp32']:.4f}, {row['latency']}"
        )


def timed(
    sessions: dict[str, Any], items: int, batch: int, rounds: int, rng: np.random.Generator
) -> dict[str, dict[str, float]]:
    """Milliseconds of each session at one batch size, in turns; how many times faster than fp32 in the same turn."""
    feeds = [made_requests(items, batch, rng) for _ in range(rounds + 3)]
    times: dict[str, list[float]] = {name: [] for name in sessions}
    for feed in feeds:
        for name, session in sessions.items():
            started = time.perf_counter()
            session.run(None, feed)
            times[name].append(1000 * (time.perf_counter() - started))
    kept = {name: of[3:] for name, of in times.items()}
    return {
        name: {
            "p50_ms": round(statistics.median(of), 3),
            "p99_ms": round(float(np.quantile(of, 0.99)), 3),
            "times_faster": round(statistics.median(a / b for a, b in zip(kept["fp32"], of, strict=True)), 2),
        }
        for name, of in kept.items()
    }


if __name__ == "__main__":
    sys.exit(guarded(app))

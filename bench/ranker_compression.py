"""Compressed rankers: quality on the valid split, file bytes and latency, beside fp32 and fp16.

    .venv/bin/python -m bench.ranker_compression --name ml-100k --set data.source=movielens-100k

With ``--trained`` the chain of paths.var is measured as it is, by the test split, and nothing is fine-tuned. Otherwise
everything is fitted on the train split alone; fine-tuning and calibration see train only, and the valid split's users
judge: AUC over all their candidates, GAUC and NDCG@10 per user with a paired bootstrap over users against fp32. Files
are those of the export path, parity with torch checked. Latency is ONNX Runtime's on one thread, the variants in turn
on the same requests: candidates that recall proposes to users of valid.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from torch import Tensor, nn

from bench.machine import measured_commit, this_machine
from bench.ranker_variants import variants
from compression.candidate import served_form
from compression.ranker.module import CompactRanker
from core.artifacts import latest_artifact, parent_artifact, write_json
from core.bootstrap import paired_bootstrap
from core.dataset import Dataset, Events, load_dataset
from core.histories import pad
from core.progress import SILENT, Progress
from core.settings import ROOT, Settings, load_settings
from core.tensors import MASKED, StepSpec, rank_step
from export.onnx_graph import export_graph
from export.parity import Feeds, check_parity, open_session
from pipeline.console import Terminal
from training.data.stage import build_dataset
from training.models.ranker import Ranker, load_ranker
from training.models.ranker_merge import Merged
from training.models.recall import load_model
from training.ranking.examples import Batch, Examples, build_examples, propose
from training.ranking.fit import RecallSet, fit_ranker, fit_recall_set, look_at
from training.ranking.scoring import auc_of_users, by_base, ndcg_of_users, scores_of
from training.ranking.windows import Window, label_windows
from training.requests import user_codes

BATCHES = (1, 8, 32, 64)
REQUESTS = {1: 24, 8: 8, 32: 4, 64: 4}
ROUNDS = {1: 20, 8: 6, 32: 3, 64: 3}
CALIBRATION = (16, 16)
"""Requests and users in each, drawn from train."""
TEACHING_WINDOWS = 2


@dataclass(frozen=True)
class World:
    """What is compressed and how it is judged.

    Attributes:
        ranker: fp32.
        recall: Of the same fit.
        taught: Users of label windows within train.
        judged: Users of valid.
    """

    dataset: Dataset
    ranker: Ranker
    recall: RecallSet
    taught: tuple[Examples, ...]
    judged: Examples


def build_world(settings: Settings, progress: Progress = SILENT) -> World:
    """Trains on the train split alone."""
    dataset = load_dataset(build_dataset(settings, progress))
    train, seed = dataset.events.of_splits(("train",)), settings.train.seed
    known: dict[int, RecallSet] = {}

    def fit_recall(data: Dataset, events: Events, chosen: Settings, of: int, shown: Progress) -> RecallSet:
        if len(events) not in known:  # pasts of windows grow, so that their length names them
            known[len(events)] = fit_recall_set(data, events, chosen, of, shown)
        return known[len(events)]

    recall = fit_recall(dataset, train, settings, seed, progress)
    ranker = fit_ranker(dataset, settings, seed=seed, recall=recall, progress=progress, fit_recall=fit_recall).model
    options = settings.ranker
    windows = label_windows(
        train, count=options.windows, has_times=dataset.has_times, share=options.window_share,
        rng=np.random.default_rng(seed),
    )  # fmt: skip
    rng = np.random.default_rng([seed, 7])
    taught = tuple(
        look_at(dataset, window, settings, seed, rng, progress, fit_recall).examples
        for window in windows[-TEACHING_WINDOWS:]
    )
    valid = dataset.events.of_splits(("valid",))
    future = valid.where(np.isin(valid.user_rows, train.user_rows))
    judged = build_examples(
        dataset, Window("valid", train, future), recall, ranker.tables, np.ones(len(future), dtype=bool),
        max_users=options.max_users, rng=rng, progress=progress,
    )  # fmt: skip
    return World(dataset, ranker, recall, taught, judged)


def trained_world(settings: Settings) -> World:
    """The newest trained chain of ``paths.var``, judged by the test split; nothing is fine-tuned."""
    var, rng = settings.paths.var, np.random.default_rng([settings.train.seed, 7])
    artifact = latest_artifact(var, "ranker")
    dataset, ranker = load_dataset(parent_artifact(artifact, var, "dataset")), load_ranker(artifact)
    sources = ranker.shape.sources
    recall = RecallSet({name: load_model(parent_artifact(artifact, var, name)) for name in sources})
    fitted = dataset.events.of_splits(artifact.manifest.settings["train"]["fit"])
    test = dataset.events.of_splits(("test",))
    future = test.where(np.isin(test.user_rows, fitted.user_rows))
    judged = build_examples(
        dataset, Window("test", fitted, future), recall, ranker.tables, np.ones(len(future), dtype=bool),
        max_users=settings.ranker.max_users, rng=rng,
    )  # fmt: skip
    return World(dataset, ranker, recall, (), judged)


def scorer(module: nn.Module) -> Callable[[Batch], Tensor]:
    """Scores of a plain or packed ranker on examples; what a short one does not look at comes last, all alike."""
    if isinstance(module, CompactRanker):
        return partial(_scores_of_compact, module)
    if not isinstance(module, Ranker):
        raise TypeError(type(module).__name__)
    base = by_base(module)
    return lambda batch: base(batch) + module.strength * module.correction(batch.candidates)


def _scores_of_compact(module: CompactRanker, batch: Batch) -> Tensor:
    scores = module.score(_merged(batch), batch.history, batch.user_features).scores
    if not module.kept:
        return scores
    blended = torch.where(batch.valid, (batch.source_scores * module.blend).sum(-1), MASKED)
    looked_at = torch.topk(blended, module.kept, dim=1).indices
    return torch.full_like(scores, scores.min().item() - 1).scatter(1, looked_at, scores.gather(1, looked_at))


def _merged(batch: Batch) -> Merged:
    count = batch.source_scores.shape[-1]
    discounts = batch.features[..., 2 * count : 3 * count]
    return Merged(batch.rows, batch.valid, batch.source_scores, batch.present, discounts)


def pooled_auc(scores: Sequence[Tensor], examples: Examples) -> float:
    """Share of (hit, miss) pairs over all users in the right order, ties counting half."""
    pairs = list(zip(scores, examples.batches, strict=True))
    values = torch.cat([part[batch.valid] for part, batch in pairs]).double().numpy()
    labels = torch.cat([batch.labels[batch.valid] for _, batch in pairs]).numpy() > 0
    misses = np.sort(values[~labels])
    below = np.searchsorted(misses, values[labels], "left") + np.searchsorted(misses, values[labels], "right")
    return float(below.mean() / (2 * len(misses)))


def quality(module: nn.Module, world: World, before: Mapping[str, np.ndarray] | None, seed: int) -> tuple[Any, Any]:
    """Figures, and the values of users for comparisons."""
    scores = scores_of(scorer(module), world.judged)
    users = {"gauc": auc_of_users(scores, world.judged), "ndcg@10": ndcg_of_users(scores, world.judged)}
    figures: dict[str, Any] = {"auc": round(pooled_auc(scores, world.judged), 5)}
    for name, values in users.items():
        figures[name] = round(float(np.nanmean(values)), 5)
        if before is not None:
            both = np.isfinite(values) & np.isfinite(before[name])
            gap = paired_bootstrap(values[both], before[name][both], np.random.default_rng(seed))
            scale = float(before[name][both].mean())
            figures[f"{name}_relative"] = [round(part / scale, 5) for part in (gap.mean, gap.low, gap.high)]
    return figures, users


def request_feeds(world: World, split: str, batch: int, rng: np.random.Generator) -> Feeds:
    """One real request of ``batch`` users of a split, candidates as recall proposes them."""
    histories = world.dataset.histories(("train",))
    users = np.unique(world.dataset.events.of_splits((split,)).user_rows)
    users = rng.choice(users[histories.lengths[users] > 0], batch, replace=False)
    padded, codes = pad(histories.select(users), world.dataset.n_items), user_codes(world.dataset, users)
    with torch.no_grad():
        lists = [part.numpy() for model in world.recall.models.values() for part in propose(model, padded, codes)]
    names = [tensor.name for tensor in rank_step(world.recall.names).inputs]
    return dict(zip(names, (padded.rows, padded.ages, padded.values, codes.numpy(), *lists), strict=True))


def latencies(paths: Mapping[str, Path], feeds: Mapping[int, list[Feeds]]) -> dict[str, dict[str, Any]]:
    """Milliseconds by variant and batch size, and the ratio to fp32's on the same request in the same round."""
    sessions = {name: open_session(path) for name, path in paths.items()}
    found: dict[str, dict[str, Any]] = {name: {} for name in paths}
    for batch, requests in feeds.items():
        times: dict[str, list[float]] = {name: [] for name in paths}
        for feed in requests:
            for session in sessions.values():
                session.run(None, feed)
            for _ in range(ROUNDS[batch]):
                for name, session in sessions.items():
                    started = time.perf_counter()
                    session.run(None, feed)
                    times[name].append(1_000 * (time.perf_counter() - started))
        for name, values in times.items():
            ratio = np.median(np.array(times["fp32"]) / np.array(values))
            found[name][str(batch)] = {
                "p50_ms": round(float(np.median(values)), 3),
                "p95_ms": round(float(np.quantile(values, 0.95)), 3),
                "times_faster": round(float(ratio), 3),
            }
    return found


def measure(settings: Settings, world: World, files: Sequence[str], progress: Progress = SILENT) -> dict[str, Any]:
    """All variants of one dataset; ``files`` names those with a file and latency, all that have one if empty."""
    seed = settings.train.seed
    rng = np.random.default_rng([seed, 9])
    spec: StepSpec = rank_step(world.recall.names)
    count, users = CALIBRATION
    calibration = [
        tuple(torch.from_numpy(part) for part in request_feeds(world, "train", users, rng).values())
        for _ in range(count)
    ]
    feeds = {batch: [request_feeds(world, "valid", batch, rng) for _ in range(REQUESTS[batch])] for batch in BATCHES}
    example = {name: torch.from_numpy(part) for name, part in feeds[8][0].items()}
    rows: dict[str, Any] = {}
    before: Mapping[str, np.ndarray] | None = None
    with tempfile.TemporaryDirectory() as folder:
        paths: dict[str, Path] = {}
        for variant in variants(world.ranker, world.taught, calibration, settings.ranker, seed):
            figures, of_users = quality(variant.module, world, before, seed)
            before = before or of_users
            rows[variant.name] = figures | {
                "seconds": round(variant.seconds, 2),
                "unchanged": [f"{one.layer}: {one.reason}" for one in variant.unchanged],
            }
            if variant.exported and (not files or variant.name in files):
                path = paths[variant.name] = Path(folder) / f"{len(paths)}.onnx"
                graph = served_form(variant.module, "onnxruntime")
                limits = {"opset": settings.export.opset, "max_batch": settings.export.max_batch}
                export_graph(graph, spec, example, path, **limits)
                compared = check_parity(variant.module, spec, path, [feeds[1][0], feeds[8][0]])
                rows[variant.name]["file_bytes"] = path.stat().st_size
                rows[variant.name]["parity_worst"] = max(r.worst for r in compared if r.output == "ranked_scores")
            progress.say(f"{variant.name}: {rows[variant.name]}")
        for name, of_batch in latencies(paths, feeds).items():
            rows[name]["latency"] = of_batch
    for one in rows.values():
        one["auc_share"] = round(one["auc"] / rows["fp32"]["auc"], 5)
        if "file_bytes" in one:
            others = {name: rows[name]["file_bytes"] for name in ("fp32", "packed", "fp16") if name in paths}
            one["times_smaller_than"] = {name: round(size / one["file_bytes"], 2) for name, size in others.items()}
    lengths = {str(batch): [feed["history_rows"].shape[1] for feed in part] for batch, part in feeds.items()}
    return {"users": len(world.judged), "strength": float(world.ranker.strength), "history_lengths": lengths,
            "variants": rows}  # fmt: skip


def main(
    name: Annotated[str, typer.Option(help="Of the dataset, in the result's file name.")],
    assignments: Annotated[list[str] | None, typer.Option("--set", help="Settings, as for conch.")] = None,
    config: Annotated[list[Path] | None, typer.Option(help="Settings files.")] = None,
    trained: Annotated[bool, typer.Option(help="Take the newest trained chain; the test split judges.")] = False,
    file: Annotated[list[str] | None, typer.Option(help="Variants with file and latency; all without.")] = None,
    out: Annotated[Path | None, typer.Option(help="Result file.")] = None,
) -> None:
    """Writes bench/results/ranker_compression-<name>.json."""
    torch.set_num_threads(1)
    settings = load_settings(tuple(config or ()), [*(assignments or ()), 'train.fit=["train"]'])
    started = datetime.now(UTC)
    world = trained_world(settings) if trained else build_world(settings, Terminal())
    found = {"judged_by": "test" if trained else "valid", **measure(settings, world, file or (), Terminal())}
    path = out or ROOT / "bench" / "results" / f"ranker_compression-{name}.json"
    known = {"measured": started.isoformat(timespec="seconds"), "commit": measured_commit(), "dataset": name}
    write_json(path, {**known, "machine": asdict(this_machine()), **found})
    sys.stdout.write(f"wrote {path}\n")


if __name__ == "__main__":
    typer.run(main)

"""The chosen models as they are served, beside fp32: files, memory, operators, parity and speed of their graphs."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import nn

from compression.candidate import Candidate, served_form
from core.dataset import Dataset
from core.progress import Progress
from core.settings import Settings
from core.tensors import RANK, StepSpec, graph_steps
from export.footprint import Footprint, footprint
from export.onnx_graph import export_graph
from export.parity import Feeds, check_parity, open_session, run_torch
from export.stage import sample_requests
from training.models.recall import RecallModel

BATCHES = (1, 8, 32)
"""And the largest that the graphs take."""
ROUNDS, LEAST_ROUNDS, SECONDS = 40, 5, 4.0
"""Pairs timed per batch size: as many, or what these seconds allow."""
RESAMPLES = 1_000


@dataclass(frozen=True)
class Speed:
    """fp32 and compressed graph in turns on the same requests, ONNX Runtime on one thread.

    Attributes:
        batch: Users per request.
        rounds: Pairs.
        fp32_ms: Median.
        fp32_p95_ms: 95th percentile.
        ms: Median of the compressed one.
        p95_ms: Its 95th percentile.
        faster: Median over the pairs of fp32's time by the compressed one's.
        low: Lower end of its 95 % bootstrap interval.
        high: Upper end.
    """

    batch: int
    rounds: int
    fp32_ms: float
    fp32_p95_ms: float
    ms: float
    p95_ms: float
    faster: float
    low: float
    high: float


@dataclass(frozen=True)
class Served:
    """One step.

    Attributes:
        name: The candidate.
        fp32: Graph of the original.
        compressed: Graph of the candidate.
        worst: Largest difference between torch and the compressed graph, by output; of rows the share that differs
            beyond ties.
        speed: By batch size.
    """

    name: str
    fp32: Footprint
    compressed: Footprint
    worst: Mapping[str, float]
    speed: tuple[Speed, ...]


def measure_served(
    originals: Mapping[str, nn.Module],
    chosen: Sequence[Candidate],
    dataset: Dataset,
    settings: Settings,
    progress: Progress,
) -> dict[str, Served]:
    """Exports both forms of each chosen step and measures them.

    Args:
        originals: fp32 modules by step, recall steps in order and the ranker last.
        chosen: One candidate per compressed step.
        dataset: Its users are asked about.
        settings: Sections ``export`` and ``train``.
        progress: Where a bar goes.

    Raises:
        ExportError: A graph that does not export, or that differs from its module.
    """
    sources = tuple(step.removeprefix("recall_") for step in originals if step != RANK)
    largest = settings.export.max_batch
    feeds = {batch: sample_requests(dataset, settings, batch) for batch in sorted({2, *_batches(largest)})}
    by_step = {one.step: one for one in chosen}
    found: dict[str, Served] = {}
    with TemporaryDirectory(prefix="conch-served-") as folder, progress.bar("as served", len(by_step)) as bar:
        for spec in graph_steps(sources):
            if spec.name in by_step:
                found[spec.name] = _measure(
                    spec, originals[spec.name], by_step[spec.name], feeds, settings, Path(folder)
                )
                bar.advance(note=spec.name)
            if spec.name != RANK:
                for feed in feeds.values():  # the ranker is asked with what fp32 proposes, both forms alike
                    outputs = run_torch(originals[spec.name].eval(), spec, feed)
                    feed.update(zip((tensor.name for tensor in spec.outputs), outputs, strict=True))
    return found


def _measure(
    spec: StepSpec, original: nn.Module, one: Candidate, feeds: Mapping[int, Feeds], settings: Settings, folder: Path
) -> Served:
    asked = {batch: {tensor.name: feed[tensor.name] for tensor in spec.inputs} for batch, feed in feeds.items()}
    example = {name: torch.from_numpy(values) for name, values in asked[2].items()}
    paths = []
    for name, module in (("fp32", original), (one.name, one.module)):
        paths.append(folder / f"{spec.name}-{name}.onnx")
        export_graph(
            served_form(module, "onnxruntime"), spec, example, paths[-1],
            opset=settings.export.opset, max_batch=settings.export.max_batch,
        )  # fmt: skip
    graph = served_form(one.module, "onnxruntime")
    inexact = isinstance(graph, RecallModel) and graph.finds_best
    parity = check_parity(graph if inexact else one.module, spec, paths[1], list(asked.values()))
    worst = {out.name: max(each.worst for each in parity if each.output == out.name) for out in spec.outputs}
    speed = tuple(compare_speed(paths[0], paths[1], asked[batch]) for batch in _batches(settings.export.max_batch))
    return Served(one.name, footprint(paths[0]), footprint(paths[1]), worst, speed)


def compare_speed(fp32: Path, compressed: Path, feed: Feeds, seed: int = 0) -> Speed:
    """Times two graphs in turns on one request, so that a busy moment hits both."""
    sessions = [open_session(path) for path in (fp32, compressed)]
    for session in sessions:
        session.run(None, feed)
    pairs: list[list[float]] = []
    until = time.perf_counter() + SECONDS
    while len(pairs) < ROUNDS and (len(pairs) < LEAST_ROUNDS or time.perf_counter() < until):
        pair = []
        for session in sessions:
            started = time.perf_counter()
            session.run(None, feed)
            pair.append(1e3 * (time.perf_counter() - started))
        pairs.append(pair)
    times = np.array(pairs)
    ratios = times[:, 0] / times[:, 1]
    drawn = np.random.default_rng(seed).integers(len(ratios), size=(RESAMPLES, len(ratios)))
    low, high = np.quantile(np.median(ratios[drawn], axis=1), [0.025, 0.975])
    (theirs, ours), (theirs_p95, ours_p95) = np.quantile(times, [0.5, 0.95], axis=0)
    return Speed(
        len(next(iter(feed.values()))), len(pairs), float(theirs), float(theirs_p95), float(ours), float(ours_p95),
        float(np.median(ratios)), float(low), float(high),
    )  # fmt: skip


def _batches(largest: int) -> list[int]:
    return sorted({batch for batch in (*BATCHES, largest) if batch <= largest})

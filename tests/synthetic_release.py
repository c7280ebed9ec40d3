"""A small release that needs no training: real ONNX graphs of a few nodes, real state files, real configs.

Recall scores items by a random embedding of the mean history; ranking merges the two lists by scattering their
scores. The reasons are the three newest items of the history. Small enough to start Triton in two seconds.
"""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import onnx

from core.features import FeatureColumn, FeatureTable
from core.histories import Histories
from core.sections import ServingSettings
from core.settings import ROOT
from core.similarity import directions
from core.tensors import SIMILAR_ITEMS, SIMILAR_USERS, recall_step
from core.vocabulary import Vocabulary
from export.config import render_configs
from serving.release import ReleaseInfo
from serving.rerank import NO_GROUP, ItemTables, Reranker
from serving.state import Catalogue, write_context_state, write_respond_state, write_users_state
from tests.synthetic_graphs import (
    SOURCES,
    Shape,
    nearest_items_graph,
    nearest_users_graph,
    rank_graph,
    recall_graph,
)

SMALL = Shape()


def write_synthetic_release(
    folder: Path,
    *,
    version: int = 1,
    shape: Shape = SMALL,
    seed: int = 0,
    serving: ServingSettings | None = None,
    extras: tuple[str, ...] = (SIMILAR_ITEMS.name, SIMILAR_USERS.name),
    reranker: Reranker | None = None,
    excluded: tuple[int, ...] = (),
) -> ReleaseInfo:
    """Writes a complete release folder. User ``u0`` has seen everything, ``u1`` nothing."""
    rng = np.random.default_rng(seed)
    sizes = {"K": shape.candidates, "R": shape.returned, "F": shape.features}
    release_id = f"r{version:06d}"
    repository = folder / "repository"
    for name, text in render_configs(version, SOURCES, sizes, shape.max_batch, serving, extras).items():
        (repository / name / str(version)).mkdir(parents=True)
        (repository / name / "config.pbtxt").write_text(text, encoding="utf-8")
    for name in ("context", "respond", *(("name_users",) if SIMILAR_USERS.name in extras else ())):
        shutil.copy(ROOT / "model_repository" / name / "1" / "model.py", repository / name / str(version))

    users = Vocabulary([f"u{row}" for row in range(shape.users)])
    items = Vocabulary([f"ítem-{row}" for row in range(shape.items)])
    histories = synthetic_histories(shape, rng)
    codes = rng.integers(0, 3, (shape.users, shape.features)).astype(np.int32)
    features = FeatureTable(tuple(FeatureColumn(f"f{at}", "category", 3, 1) for at in range(shape.features)), codes)
    counts = np.bincount(histories.item_rows, minlength=shape.items)
    catalogue = Catalogue(items, counts, np.isin(np.arange(shape.items), excluded))
    write_context_state(repository / "context" / str(version), release_id, catalogue, users, histories, features)
    reranker = reranker or synthetic_reranker(shape)
    write_respond_state(repository / "respond" / str(version), release_id, catalogue, reranker)
    for spec in map(recall_step, SOURCES):
        onnx.save(recall_graph(spec, shape, rng), repository / spec.name / str(version) / "model.onnx")
    onnx.save(rank_graph(shape, sizes), repository / "rank" / str(version) / "model.onnx")
    nearest = np.random.default_rng([seed, 1])
    if SIMILAR_ITEMS.name in extras:
        onnx.save(nearest_items_graph(shape, nearest), repository / "nearest_items" / str(version) / "model.onnx")
    if SIMILAR_USERS.name in extras:
        onnx.save(nearest_users_graph(shape, nearest), repository / "nearest_users" / str(version) / "model.onnx")
        write_users_state(repository / "name_users" / str(version), release_id, users)

    info = ReleaseInfo(
        release_id=release_id,
        version=version,
        sources=SOURCES,
        extras=extras,
        sizes=sizes,
        n_items=shape.items,
        max_batch=shape.max_batch,
        created=datetime(2026, 1, 1, tzinfo=UTC),
    )
    info.write(folder)
    for name in ("recommend", *extras):
        info.write(repository / name / str(version))
    return info


def synthetic_reranker(shape: Shape) -> Reranker:
    """MMR over random directions, without rules and off by default."""
    rng = np.random.default_rng(7)
    vectors = np.append(directions(rng.standard_normal((shape.items, 8))), np.zeros((1, 8)), axis=0)
    groups = np.full((shape.items + 1, 0), NO_GROUP, np.int32)
    tables = ItemTables(
        vectors.astype(np.float16), np.zeros(shape.items + 1, np.float32), groups, np.zeros(0, np.int32)
    )
    return Reranker("mmr", 0.0, shape.returned, tables)


def synthetic_histories(shape: Shape, rng: np.random.Generator) -> Histories:
    """Distinct items per user; user 0 has all of them, user 1 none."""
    lengths = rng.integers(1, shape.items // 2, shape.users)
    lengths[0], lengths[1] = shape.items, 0
    rows = np.concatenate([rng.permutation(shape.items)[:length] for length in lengths])
    times = 1.6e9 + rng.random(len(rows)) * 1e7
    values = rng.standard_normal(len(rows))
    kinds = rng.integers(0, 3, len(rows))
    return Histories.from_events(np.repeat(np.arange(shape.users), lengths), rows, times, values, shape.users, kinds)

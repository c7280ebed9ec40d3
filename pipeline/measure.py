"""How good is a release? Full ranking of the catalogue for every user of a split, per stage and end to end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from core.bootstrap import paired_bootstrap, standard_error
from core.dataset import Dataset, Events
from core.metrics import (
    Truth,
    accuracy_metrics,
    coverage,
    gini,
    hits,
    intra_list_diversity,
    novelty,
    truth_of,
)
from core.progress import SILENT, Progress
from serving.local import PIPELINE, POPULARITY, LocalPipeline

RECALL = "recall"
"""Stage that merges the candidate lists of all sources by reciprocal rank."""

FUSION_CONSTANT = 60
"""Reciprocal rank fusion, Cormack, Clarke and Büttcher 2009: score = sum over lists of 1 / (60 + rank)."""

DECIMALS = 5


@dataclass(frozen=True)
class Question:
    """Who is asked about, and what they really did.

    Attributes:
        user_rows: Users with something to find, int64 ``(U,)``.
        truth: Their later items, without those already seen.
        warm: bool ``(U,)``, True for users with events in the fitted part.
    """

    user_rows: np.ndarray
    truth: Truth
    warm: np.ndarray


def held_out(dataset: Dataset, fit: tuple[str, ...], split: str) -> Question:
    """The users and truth of a split: items already in a user's fitted history are no truth, cold items are."""
    seen = dataset.events.of_splits(fit)
    later = dataset.events.of_splits((split,))
    width = np.int64(dataset.n_items)
    new = ~np.isin(_pairs(later, width), _pairs(seen, width))
    users, index = np.unique(later.user_rows[new], return_inverse=True)
    truth = truth_of(index, later.item_rows[new], len(users))
    return Question(users.astype(np.int64), truth, np.isin(users, seen.user_rows))


def evaluate(
    pipeline: LocalPipeline,
    dataset: Dataset,
    *,
    fit: tuple[str, ...],
    split: str = "test",
    ks: tuple[int, ...] = (10, 20, 100),
    seed: int = 0,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Measures every stage of a release on a split.

    Args:
        pipeline: The release's graphs in process: the same ones that Triton serves.
        dataset: The dataset that the release was made from.
        fit: Splits that the models learned from; their items are masked.
        split: The split to predict.
        ks: Cut-offs.
        seed: Seed of the bootstrap.
        progress: Where bars go.

    Returns:
        Plain JSON values: per stage ``warm`` and ``all`` with metric means rounded to 5 decimals, their standard
        errors, beyond-accuracy measures, and paired bootstrap differences of the pipeline against the others.
    """
    question = held_out(dataset, fit, split)
    lists = recommend_lists(pipeline, dataset, question.user_rows, max(ks), progress)
    fitted = dataset.events.of_splits(fit)
    counts = np.bincount(fitted.item_rows, minlength=dataset.n_items)
    per_user = {
        name: accuracy_metrics(hits(rows, question.truth), question.truth.sizes, ks) for name, rows in lists.items()
    }
    codes = _distinct_codes(dataset)
    report: dict[str, Any] = {
        "split": split,
        "fit": list(fit),
        "users": {"warm": int(question.warm.sum()), "all": len(question.warm)},
        "models": {},
    }
    for name, values in per_user.items():
        report["models"][name] = {
            "warm": _summary(values, question.warm),
            "all": _summary(values, np.ones_like(question.warm)),
            "beyond": {
                f"coverage@{ks[0]}": round(coverage(lists[name][:, : ks[0]], dataset.n_items), DECIMALS),
                f"gini@{ks[0]}": round(gini(lists[name][:, : ks[0]], dataset.n_items), DECIMALS),
                f"novelty_bits@{ks[0]}": round(novelty(lists[name][:, : ks[0]], counts, dataset.n_users), DECIMALS),
                f"diversity@{ks[0]}": _finite(intra_list_diversity(lists[name][:, : ks[0]], codes)),
            },
        }
    report["pipeline_minus"] = _differences(per_user, question.warm, f"ndcg@{ks[0]}", seed)
    return report


def recommend_lists(
    pipeline: LocalPipeline, dataset: Dataset, user_rows: np.ndarray, k: int, progress: Progress = SILENT
) -> dict[str, np.ndarray]:
    """Item rows per stage for the given users, best first, -1 where a list is short.

    All ``(U, k)`` but those of recall sources, which keep all K candidates: the merged list is drawn from them.
    """
    user_ids = list(dataset.users.ids[user_rows])
    lists: dict[str, np.ndarray] = {}
    sources = pipeline.info.sources
    with progress.bar("evaluate", len(pipeline.stages)) as bar:
        for name in pipeline.stages:
            width = max(k, pipeline.info.sizes["K"]) if name in sources else k
            lists[name] = pipeline.recommend_rows(user_ids, width, stage=name)
            bar.advance(note=name)
    lists[RECALL] = fuse(tuple(lists[name] for name in sources), dataset.n_items, k)
    return {name: lists[name] for name in (POPULARITY, *sources, RECALL, PIPELINE)}


def fuse(lists: tuple[np.ndarray, ...], n_items: int, k: int) -> np.ndarray:
    """Reciprocal rank fusion of lists ``(U, k)`` of item rows (-1 is none); ties to the lower row."""
    fused = np.full((len(lists[0]), k), -1, dtype=np.int64)
    for start in range(0, len(fused), 1024):
        part = slice(start, start + 1024)
        scores = np.zeros((len(fused[part]), n_items + 1))
        for rows in lists:
            gains = 1.0 / (FUSION_CONSTANT + 1 + np.arange(rows.shape[1]))
            np.add.at(scores, (np.arange(len(scores))[:, None], rows[part]), gains)  # -1 falls into the spare column
        order = np.argsort(-scores[:, :n_items], axis=1, kind="stable")[:, :k]
        found = np.take_along_axis(scores, order, axis=1) > 0
        fused[part, : order.shape[1]] = np.where(found, order, -1)
    return fused


def _pairs(events: Events, width: np.int64) -> np.ndarray:
    keys: np.ndarray = events.user_rows.astype(np.int64) * width + events.item_rows
    return keys


def _summary(values: dict[str, np.ndarray], mask: np.ndarray) -> dict[str, float]:
    means = {name: round(float(v[mask].mean()), DECIMALS) if mask.any() else 0.0 for name, v in values.items()}
    errors = {f"{name}_se": round(standard_error(v[mask]), DECIMALS) for name, v in values.items() if "ndcg" in name}
    return {**means, **errors}


def _differences(
    per_user: dict[str, dict[str, np.ndarray]], warm: np.ndarray, metric: str, seed: int
) -> dict[str, Any]:
    if not warm.any():
        return {}
    ours = per_user[PIPELINE][metric][warm]
    out = {}
    for name in (name for name in per_user if name != PIPELINE):
        gap = paired_bootstrap(ours, per_user[name][metric][warm], np.random.default_rng(seed))
        out[name] = {
            "metric": metric,
            "mean": round(gap.mean, DECIMALS),
            "low": round(gap.low, DECIMALS),
            "high": round(gap.high, DECIMALS),
            "standard_error": round(gap.standard_error, DECIMALS),
        }
    return out


def _distinct_codes(dataset: Dataset) -> np.ndarray:
    """Item codes made unique across columns, so that two columns never seem to share a value."""
    codes = dataset.item_features.codes.astype(np.int64)
    offset, at = 0, 0
    shifted = codes.copy()
    for column in dataset.item_features.columns:
        part = slice(at, at + column.width)
        shifted[:, part] = np.where(codes[:, part] > 0, codes[:, part] + offset, 0)
        offset += column.cardinality
        at += column.width
    return shifted


def _finite(value: float) -> float | None:
    return round(value, DECIMALS) if np.isfinite(value) else None

"""How good is a release? Full ranking of the catalogue for every user of a split, per stage and end to end."""

from __future__ import annotations

from typing import Any

import numpy as np

from core.bootstrap import paired_bootstrap, standard_error
from core.dataset import Dataset
from core.metrics import (
    accuracy_metrics,
    coverage,
    gini,
    hits,
    intra_list_diversity,
    novelty,
    recall,
)
from core.progress import SILENT, Progress
from core.sections import Target
from pipeline.question import Question, held_out, item_slices, restrict, user_slices
from serving.local import PIPELINE, POPULARITY, LocalPipeline

RECALL = "recall"
"""Stage that merges the candidate lists of all sources by reciprocal rank."""

FUSION_CONSTANT = 60
"""Reciprocal rank fusion, Cormack, Clarke and Büttcher 2009: score = sum over lists of 1 / (60 + rank)."""

DECIMALS = 5


def evaluate(
    pipeline: LocalPipeline,
    dataset: Dataset,
    *,
    fit: tuple[str, ...],
    split: str = "test",
    target: Target = "any",
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
        target: What counts as a hit.
        ks: Cut-offs.
        seed: Seed of the bootstrap.
        progress: Where bars go.

    Returns:
        Plain JSON values: per stage ``warm`` and ``all`` with metric means rounded to 5 decimals, their standard
        errors and beyond-accuracy measures, slices of users and items, and paired bootstrap differences of the
        pipeline against the others.
    """
    question = held_out(dataset, fit, split, target)
    lists = recommend_lists(pipeline, dataset, question.user_rows, max(ks), progress)
    fitted = dataset.events.of_splits(fit)
    counts = np.bincount(fitted.item_rows, minlength=dataset.n_items)
    per_user = {
        name: accuracy_metrics(hits(rows, question.truth), question.truth.sizes, ks) for name, rows in lists.items()
    }
    codes = distinct_codes(dataset)
    report: dict[str, Any] = {
        "split": split,
        "target": target,
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
    report["slices"] = {
        "users": _user_slices(per_user, question, f"ndcg@{ks[0]}"),
        "items": _item_slices(lists, question, counts, ks[-1]),
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


def _summary(values: dict[str, np.ndarray], mask: np.ndarray) -> dict[str, float]:
    means = {name: round(float(v[mask].mean()), DECIMALS) if mask.any() else 0.0 for name, v in values.items()}
    errors = {f"{name}_se": round(standard_error(v[mask]), DECIMALS) for name, v in values.items() if "ndcg" in name}
    return {**means, **errors}


def _user_slices(per_user: dict[str, dict[str, np.ndarray]], question: Question, metric: str) -> dict[str, Any]:
    """``metric`` of each stage for slices of users."""
    return {
        name: {
            "users": int(mask.sum()),
            "metric": metric,
            "models": {
                stage: {
                    "mean": round(float(values[metric][mask].mean()), DECIMALS),
                    "standard_error": round(standard_error(values[metric][mask]), DECIMALS),
                }
                for stage, values in per_user.items()
            },
        }
        for name, mask in user_slices(question).items()
    }


def _item_slices(lists: dict[str, np.ndarray], question: Question, counts: np.ndarray, k: int) -> dict[str, Any]:
    """Recall@k of each stage for the truth among slices of items, warm users with such truth only."""
    report: dict[str, Any] = {}
    for name, kept in item_slices(counts).items():
        truth = restrict(question.truth, kept)
        asked = question.warm & (truth.sizes > 0)
        if not asked.any():
            continue
        values = {stage: recall(hits(rows, truth), truth.sizes, k)[asked] for stage, rows in lists.items()}
        report[name] = {
            "items": int(kept.sum()),
            "users": int(asked.sum()),
            "metric": f"recall@{k}",
            "models": {
                stage: {
                    "mean": round(float(of.mean()), DECIMALS),
                    "standard_error": round(standard_error(of), DECIMALS),
                }
                for stage, of in values.items()
            },
        }
    return report


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


def distinct_codes(dataset: Dataset) -> np.ndarray:
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

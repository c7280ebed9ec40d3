"""What variety costs: NDCG against intra-list diversity, coverage, Gini and novelty, for every method and strength.

The candidates of each user are ranked once; every method re-ranks the same lists as the release would.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, get_args

import numpy as np
from rich import box
from rich.table import Table

from core.bootstrap import paired_bootstrap, standard_error
from core.dataset import Dataset
from core.errors import SettingsError
from core.metrics import (
    coverage,
    gini,
    hits,
    intra_list_diversity,
    ndcg,
    novelty,
    recall,
    vector_diversity,
)
from core.sections import Target
from core.tensors import MASKED
from pipeline.measure import distinct_codes
from pipeline.question import held_out
from serving.local import LocalPipeline
from serving.rerank import Method
from serving.respond import Order, ordered

METHODS: tuple[Method, ...] = tuple(method for method in get_args(Method) if method != "none")
DECIMALS = 5


def measure_tradeoff(
    pipeline: LocalPipeline,
    dataset: Dataset,
    *,
    fit: tuple[str, ...],
    split: str,
    target: Target,
    k: int,
    strengths: Sequence[float],
    seed: int = 0,
) -> dict[str, Any]:
    """Measures warm users of a split at several strengths of each method.

    Args:
        pipeline: The release's graphs in process.
        dataset: The dataset that the release was made from.
        fit: Splits that the models learned from.
        split: The split to predict.
        target: What counts as a hit.
        k: Length of the lists.
        strengths: Values of ``diversity``, each 0..1.
        seed: Seed of the bootstrap.

    Returns:
        Plain JSON values: per method one entry for each strength with NDCG and recall (means over users, and the
        paired difference of NDCG to the ranking as it is), intra-list diversity by attributes (mean Jaccard distance;
        None without attributes) and by the release's item vectors (mean of 1 - cosine), coverage, Gini, novelty.

    Raises:
        SettingsError: The release keeps no vectors, or nobody has anything to find.
    """
    tables = pipeline.reranker.tables
    if tables.vectors.shape[1] == 0:
        raise SettingsError(
            "this release has no vectors to tell items apart",
            where="rerank.method",
            expected=" or ".join(METHODS),
            found=pipeline.reranker.method,
            next_step="conch release --set rerank.method=dpp",
        )
    question = held_out(dataset, fit, split, target)
    warm = np.flatnonzero(question.warm)
    if len(warm) == 0:
        raise SettingsError("nothing to measure", where=f"split {split}", found="no warm user has a new item there")
    ranked = pipeline.ranked(list(dataset.users.ids[question.user_rows]))
    counts = np.bincount(dataset.events.of_splits(fit).item_rows, minlength=dataset.n_items)
    codes, sizes = distinct_codes(dataset), question.truth.sizes

    def lists_of(method: Method, strength: float) -> np.ndarray:
        order = Order(replace(pipeline.reranker, method=method), np.full(len(ranked.rows), strength, np.float32))
        best = ordered(ranked, k, order)
        return np.where(best.scores > MASKED / 2, best.rows, -1)

    def ndcg_of(lists: np.ndarray) -> np.ndarray:
        values: np.ndarray = ndcg(hits(lists, question.truth), sizes, k)[warm]
        return values

    plain = ndcg_of(lists_of("none", 0.0))
    curves: dict[str, list[dict[str, Any]]] = {}
    for method in METHODS:
        curves[method] = []
        for strength in strengths:
            lists = lists_of(method, strength)
            values, shown = ndcg_of(lists), lists[warm]
            gap = paired_bootstrap(values, plain, np.random.default_rng(seed))
            curves[method].append(
                {
                    "diversity": strength,
                    f"ndcg@{k}": _rounded(values.mean()),
                    f"ndcg@{k}_se": _rounded(standard_error(values)),
                    f"ndcg@{k}_change": _rounded(gap.mean),
                    f"ndcg@{k}_change_se": _rounded(gap.standard_error),
                    f"recall@{k}": _rounded(recall(hits(lists, question.truth), sizes, k)[warm].mean()),
                    "attribute_diversity": _rounded(intra_list_diversity(shown, codes)),
                    "vector_diversity": _rounded(vector_diversity(shown, tables.vectors.astype(np.float32))),
                    "coverage": _rounded(coverage(shown, dataset.n_items)),
                    "gini": _rounded(gini(shown, dataset.n_items)),
                    "novelty_bits": _rounded(novelty(shown, counts, dataset.n_users)),
                }
            )
    return {"split": split, "target": target, "fit": list(fit), "users": len(warm), "k": k, "curves": curves}


def as_table(report: dict[str, Any]) -> Table:
    """The report as a table; ``attr.`` and ``vect.`` are intra-list diversity by attributes and by vectors."""
    k = report["k"]
    title = f"{report['release']}, {report['target']} event of {report['split']}: {report['users']} warm users"
    table = Table(box=box.SIMPLE, title=title)
    for name in ("method", "knob", f"NDCG@{k}", "change", "± se", "attr.", "vect.", "cover", "Gini"):
        table.add_column(name, justify="left" if name == "method" else "right", no_wrap=True)
    for method, entries in report["curves"].items():
        for entry in entries:
            by_attributes = entry["attribute_diversity"]
            table.add_row(
                method,
                f"{entry['diversity']:g}",
                f"{entry[f'ndcg@{k}']:.4f}",
                f"{entry[f'ndcg@{k}_change']:+.4f}",
                f"{entry[f'ndcg@{k}_change_se']:.4f}",
                "-" if by_attributes is None else f"{by_attributes:.3f}",
                f"{entry['vector_diversity']:.3f}",
                f"{entry['coverage']:.3f}",
                f"{entry['gini']:.3f}",
            )
    return table


def read_strengths(text: str) -> tuple[float, ...]:
    """Values of ``--diversity``: numbers from 0 to 1 between commas. Raises SettingsError for anything else."""
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = (float("nan"),)
    if not all(0 <= value <= 1 for value in values):
        raise SettingsError(
            "cannot read --diversity",
            where="--diversity",
            expected="numbers from 0 to 1, such as 0,0.1,0.3",
            found=text,
        )
    return values


def _rounded(value: float | np.floating) -> float | None:
    return round(float(value), DECIMALS) if np.isfinite(value) else None

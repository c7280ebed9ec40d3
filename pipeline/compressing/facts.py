"""A search's outcome as plain JSON values."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from compression.candidate import Sizes
from compression.judge import Verdict
from compression.search import Combination, Judged, Outcome, front
from core.artifacts import code_commit, environment
from core.sections import CompressSettings

SCHEMA = 1
DECIMALS = 5
NOT_MEASURED = (
    "TensorRT and CUDA: latency and accuracy; no plan was built",
    "memory of a loaded session",
    "latency of the exported recall graphs over large catalogues: `python -m bench.scan` measures it on made vectors",
    "quality on test: `conch evaluate` on the release",
)


def facts_of_outcome(outcome: Outcome, options: CompressSettings, users: int, seconds: float) -> dict[str, Any]:
    """Everything that was tried, and what was chosen and why."""
    return {
        "schema_version": SCHEMA,
        "goal": asdict(outcome.goal),
        "settings": options.model_dump(mode="json"),
        "code_commit": code_commit(),
        "environment": environment(),
        "judged_on": {"split": options.split, "users": users, "overlap_at": options.overlap_at},
        "seconds": round(seconds, 1),
        "original_sizes": {step: asdict(sizes) | {"total": sizes.total} for step, sizes in outcome.originals.items()},
        "candidates": {
            step: [_candidate(one, found[0].sizes, [each.name for each in front(found)]) for one in found]
            for step, found in outcome.candidates.items()
        },
        "combinations": [_combination(one) for one in outcome.combinations],
        "chosen": {
            "steps": dict(outcome.chosen),
            "together": _verdict(outcome.together) if outcome.together else None,
            "goals_met": bool(outcome.chosen),
            "why": outcome.why,
        },
        "not_measured": list(NOT_MEASURED),
    }


def _candidate(one: Judged, original: Sizes, on_front: list[str]) -> dict[str, Any]:
    return {
        "name": one.name,
        "parent": one.parent,
        "passes": [asdict(each) for each in one.passes],
        "unchanged": [asdict(each) for each in one.unchanged],
        "sizes": asdict(one.sizes) | {"total": one.sizes.total},
        "ratio_tables": {
            "fp32": round(original.vectors / max(1, one.sizes.vectors), 2),
            "fp16": round(original.vectors / 2 / max(1, one.sizes.vectors), 2),
        },
        "ratio_total": {
            "fp32": round(original.total / one.sizes.total, 2),
            "fp16": round(original.total / 2 / one.sizes.total, 2),
        },
        "metrics": dict(one.metrics),
        "quality": _verdict(one.alone),
        "latency_ratio_torch": one.latency_ratio or None,
        "on_pareto_front": one.name in on_front,
    }


def _combination(one: Combination) -> dict[str, Any]:
    return {
        "steps": dict(one.names),
        "ratio_tables": round(one.ratio, 2),
        "together": _verdict(one.together),
        "missed": list(one.missed),
    }


def _verdict(one: Verdict) -> dict[str, Any]:
    return {
        "ndcg@10": round(one.ndcg, DECIMALS),
        "ndcg@10_relative": {name: round(value, DECIMALS) for name, value in asdict(one.relative).items()},
        "recall@100_relative": {name: round(value, DECIMALS) for name, value in asdict(one.recall).items()},
        "overlap": round(one.overlap, DECIMALS),
    }

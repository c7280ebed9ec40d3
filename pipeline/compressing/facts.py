"""A search's outcome as plain JSON values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from compression.candidate import Sizes
from compression.judge import Verdict
from compression.search import Combination, Judged, Outcome, front
from core.artifacts import code_commit, environment
from core.sections import CompressSettings
from pipeline.compressing.served import Served

SCHEMA = 2
DECIMALS = 5
NOT_MEASURED = (
    "TensorRT and CUDA: latency and accuracy; no plan was built",
    "latency of the exported recall graphs over large catalogues: `python -m bench.scan` measures it on made vectors",
    "quality on test: `conch evaluate` on the release",
)


def facts_of_outcome(
    outcome: Outcome, options: CompressSettings, users: int, seconds: float, served: Mapping[str, Served] | None = None
) -> dict[str, Any]:
    """Everything that was tried, what was chosen and why, and what that costs when it is served."""
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
            "slices": {name: {"users": users} | _verdict(verdict) for name, (users, verdict) in outcome.slices.items()},
        },
        "served": {step: _served(one) for step, one in (served or {}).items()},
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


def _served(one: Served) -> dict[str, Any]:
    facts = asdict(one)
    facts["speed"] = [
        {key: round(value, DECIMALS) if isinstance(value, float) else value for key, value in asdict(speed).items()}
        for speed in one.speed
    ]
    return facts


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

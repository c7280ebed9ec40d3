"""All rows as one table of plain JSON values: metrics, differences, seconds, and what they were measured with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from bench.crosscheck import Agreement
from bench.machine import Machine, measured_commit
from bench.protocols import Protocol
from bench.rows import Row
from bench.scoring import PerUser, Question, compare, mean_over_seeds, per_user, summary

COMPARED = ("ndcg@10", "ndcg@20", "recall@10", "recall@20", "recall@100")
DECIMALS = 5


@dataclass(frozen=True)
class Scored:
    """A row with its metrics per user, mean over seeds; empty where it was not run."""

    row: Row
    values: dict[str, PerUser]
    per_seed: tuple[dict[str, PerUser], ...]


def score(row: Row, asked: Question) -> Scored:
    """Scores every run of a row. Raises BadListsError for lists that are no answer."""
    runs = tuple(per_user(asked, run.lists()) for run in row.runs)
    return Scored(row, mean_over_seeds(runs) if runs else {}, runs)


def build(
    protocol: Protocol,
    asked: Question,
    scored: Sequence[Scored],
    agreements: Sequence[Agreement],
    *,
    machine: Machine,
    threads: int,
    command: str,
    seeds: Sequence[int],
) -> dict[str, Any]:
    """Everything that a result file holds."""
    return {
        "protocol": protocol.name,
        "title": protocol.title,
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": asdict(machine),
        "threads": threads,
        "commit": measured_commit(),
        "command": command,
        "fit": list(protocol.fit),
        "mask": list(protocol.mask),
        "headline": protocol.users,
        "seeds": list(seeds),
        "users": {name: len(group.places) for name, group in asked.groups.items()},
        "rows": [_row(one) for one in scored],
        "published": [one.model_dump() for one in protocol.published],
        "differences": differences(scored),
        "independent_evaluator": [
            {"name": a.name, "agrees": a.agrees, "widest_difference": _finite(a.widest), "note": a.note}
            for a in agreements
        ],
    }


def differences(scored: Sequence[Scored]) -> list[dict[str, Any]]:
    """Each row of ours minus each other row, paired over users, per group and metric."""
    found = []
    for ours in (one for one in scored if one.row.ours and one.values):
        for theirs in (one for one in scored if one.values and one is not ours):
            for group in ours.values:
                for metric in COMPARED:
                    gap, verdict = compare(ours.values[group][metric], theirs.values[group][metric])
                    found.append(
                        {
                            "ours": ours.row.name,
                            "other": theirs.row.name,
                            "users": group,
                            "metric": metric,
                            "mean": round(gap.mean, DECIMALS),
                            "low": round(gap.low, DECIMALS),
                            "high": round(gap.high, DECIMALS),
                            "standard_error": round(gap.standard_error, DECIMALS),
                            "verdict": verdict,
                        }
                    )
    return found


def _row(one: Scored) -> dict[str, Any]:
    row = one.row
    base = {"name": row.name, "ours": row.ours}
    if row.not_run is not None:
        return base | {"not_run": row.not_run, "failed": row.failed}
    return base | {
        "metrics": {group: summary(values) for group, values in one.values.items()},
        "per_seed": [
            {
                "seed": run.seed,
                "seconds": round(run.seconds, 2),
                "peak_mb": round(run.peak_mb),
                "measured_at": run.measured_at,
                "commit": run.commit,
                "facts": {name: round(value, 4) for name, value in run.facts.items()},
                "ndcg@10": {group: round(float(v["ndcg@10"].mean()), DECIMALS) for group, v in values.items()},
            }
            for run, values in zip(row.runs, one.per_seed, strict=True)
        ],
        "seconds": round(float(np.mean([run.seconds for run in row.runs])), 2),
        "peak_mb": round(max(run.peak_mb for run in row.runs)),
        "settings": row.settings,
        "tuning": row.tuning,
        "versions": row.versions,
    }


def _finite(value: float) -> float | None:
    return round(value, DECIMALS) if np.isfinite(value) else None

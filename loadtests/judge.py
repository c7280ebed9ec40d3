"""Do the measured requests keep the objectives?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from loadtests.growth import Growth
from loadtests.scenario import Scenario

Fate = Literal["answered", "degraded", "refused", "failed"]
"""By the models; from popularity; turned away with a time to come back; no answer, or a wrong one."""


@dataclass(frozen=True)
class Requests:
    """Every request of a run; arrays of one length.

    Attributes:
        started: float64, seconds since the load began.
        ms: float64, until the answer.
        fate: str, what became of it.
    """

    started: np.ndarray
    ms: np.ndarray
    fate: np.ndarray

    @classmethod
    def of(cls, rows: Sequence[tuple[float, float, Fate]]) -> Requests:
        """From rows in any order."""
        table = sorted(rows)
        columns: list[list[Any]] = [list(column) for column in zip(*table, strict=True)] if table else [[], [], []]
        return cls(np.array(columns[0], float), np.array(columns[1], float), np.array(columns[2], str))

    def __len__(self) -> int:
        return len(self.started)

    def where(self, kept: np.ndarray) -> Requests:
        """Some of them."""
        return Requests(self.started[kept], self.ms[kept], self.fate[kept])

    def share(self, fate: Fate) -> float:
        """Of the requests that ended so; 0 without any."""
        return float((self.fate == fate).mean()) if len(self) else 0.0


@dataclass(frozen=True)
class Verdict:
    """One objective.

    Attributes:
        name: As in the scenario.
        wanted: Its bound.
        found: What was measured.
        kept: Whether it holds.
    """

    name: str
    wanted: float
    found: float
    kept: bool


def measured(scenario: Scenario, requests: Requests) -> Requests:
    """The requests that started in measured stages."""
    kept = np.zeros(len(requests), dtype=bool)
    begin = 0.0
    for stage in scenario.stages:
        end = begin + stage.seconds
        if stage.measured:
            kept |= (requests.started >= begin) & (requests.started < end)
        begin = end
    return requests.where(kept)


def summary(scenario: Scenario, requests: Requests) -> dict[str, float]:
    """Figures of the measured stages, latencies in milliseconds: of what was answered, the slowest of anything."""
    counted = measured(scenario, requests)
    seconds = sum(stage.seconds for stage in scenario.stages if stage.measured)
    answered = counted.ms[np.isin(counted.fate, ("answered", "degraded"))]
    if len(answered) == 0:
        return {"requests": len(counted), "failed_share": 1.0 if len(counted) else 0.0, "rps": 0.0}
    p50, p95, p99 = np.percentile(answered, [50, 95, 99])
    return {
        "requests": len(counted),
        "rps": round(len(answered) / seconds, 2),
        "p50_ms": round(float(p50), 3),
        "p95_ms": round(float(p95), 3),
        "p99_ms": round(float(p99), 3),
        "most_ms": round(float(counted.ms[counted.fate != "failed"].max()), 3),
        **{f"{fate}_share": round(counted.share(fate), 6) for fate in ("failed", "degraded", "refused")},
    }


def judge(scenario: Scenario, requests: Requests) -> list[Verdict]:
    """One verdict per objective; a run without answers keeps none of them."""
    figures = summary(scenario, requests)
    wanted = scenario.objectives
    verdicts = []
    for name in ("p50_ms", "p99_ms", "most_ms", "failed_share", "degraded_share", "refused_share"):
        bound = getattr(wanted, name)
        if bound is not None:
            found = figures.get(name, float("inf"))
            verdicts.append(Verdict(name, bound, found, found <= bound))
    if wanted.least_rps is not None:
        verdicts.append(Verdict("least_rps", wanted.least_rps, figures["rps"], figures["rps"] >= wanted.least_rps))
    if wanted.recovered_seconds is not None:
        verdicts.append(_recovery(scenario, requests, wanted.recovered_seconds))
    if figures["requests"] == 0:
        verdicts.append(Verdict("requests", 1, 0, False))
    return verdicts


def judge_faults(scenario: Scenario, undone: int) -> list[Verdict]:
    """A fault that could not be done proves nothing about bearing it."""
    return [Verdict("faults_undone", 0, undone, undone == 0)] if scenario.faults else []


def judge_growth(scenario: Scenario, growth: Growth | None) -> list[Verdict]:
    """Slopes that have a bound; one that could not be measured is not kept."""
    found = {} if growth is None else growth.by_name()
    bounds = {name: getattr(scenario.objectives, name) for name in Growth.__dataclass_fields__}
    return [
        Verdict(name, bound, found.get(name, float("inf")), found.get(name, float("inf")) <= bound)
        for name, bound in bounds.items()
        if bound is not None
    ]


def _recovery(scenario: Scenario, requests: Requests, bound: float) -> Verdict:
    """Seconds from the last harm to the last request that the models did not answer."""
    last, whole = scenario.hurt_until_seconds, requests.fate == "answered"
    hurt = requests.started[~whole & (requests.started >= last)]
    after = requests.started[whole & (requests.started > last + bound)]
    found = float(hurt.max() - last) if len(hurt) else 0.0
    if len(after) == 0:  # nobody asked long enough to know
        found = float("inf")
    return Verdict("recovered_seconds", bound, round(found, 3), found <= bound)

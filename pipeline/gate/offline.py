"""G1: the same users of a later window, asked of both releases."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from pipeline.gate.findings import Finding, GateName, within
from pipeline.gate.rules import OfflineRules
from pipeline.gate.statistics import Paired, compare, harm_p_value, holm

GATE: GateName = "G1 offline"
POPULARITY = "popularity"
"""What a first release is measured against."""


@dataclass(frozen=True)
class Measured:
    """One release on the later window.

    Attributes:
        per_user: Metric name to values float64 ``(U,)``; the same users in the same order for all.
        coverage: Share of the catalogue that is shown.
        tail_share: Share of the first places that tail items get.
        calibration_error: Expected calibration error of the scores; NaN where it cannot be measured.
    """

    per_user: dict[str, np.ndarray]
    coverage: float
    tail_share: float
    calibration_error: float = float("nan")


@dataclass(frozen=True)
class Comparison:
    """Everything G1 judges.

    Attributes:
        challenger: Measured.
        champion: The live release; popularity for the first release.
        baselines: By name.
        slices: bool ``(U,)`` by name.
        is_first: There is no live release.
    """

    challenger: Measured
    champion: Measured
    baselines: dict[str, Measured]
    slices: dict[str, np.ndarray] = field(default_factory=dict)
    is_first: bool = False


def check_offline(of: Comparison, rules: OfflineRules, rng: np.random.Generator, resamples: int) -> list[Finding]:
    """All findings of G1. "better" stands in the figures of the first: the interval lies above 0."""
    ndcg = f"ndcg@{rules.ndcg_k}"
    ours, theirs = of.challenger.per_user, of.champion.per_user
    users = len(ours[ndcg])
    if users < rules.least_users:
        return [Finding(GATE, "users", "unknown", f"{users} users with a later event, needed {rules.least_users}")]
    found = []
    opponent = f" than {POPULARITY}" if of.is_first else ""
    if of.is_first:
        found.append(Finding(GATE, "live release", "pass", f"there is none: {POPULARITY} stands in for it"))
    for metric in (ndcg, f"recall@{rules.recall_k}", "mrr"):
        paired = compare(ours[metric], theirs[metric], rng, resamples)
        found.append(_not_worse(metric, paired, rules.margin, opponent))
    if of.is_first:
        mean = float(ours[ndcg].mean())
        found.append(within(GATE, f"{ndcg} of a first release", mean, rules.first_ndcg, np.inf))
    for name, measured in of.baselines.items():
        if of.is_first and name == POPULARITY:
            continue  # no worse than popularity is what a first release is asked, above
        paired = compare(ours[ndcg], measured.per_user[ndcg], rng, resamples)
        reason = f"{paired.difference:+.4f}, interval {paired.low:+.4f} to {paired.high:+.4f}; has to be above 0"
        found.append(Finding(GATE, f"beats {name}", "pass" if paired.is_better else "fail", reason, vars(paired)))
    found.append(_slices(of, ndcg, rules))
    if not of.is_first:
        found += [
            _ratio("coverage", of.challenger.coverage, of.champion.coverage, rules.coverage_ratio),
            _ratio("tail share", of.challenger.tail_share, of.champion.tail_share, rules.tail_ratio),
        ]
        gap = of.challenger.calibration_error - of.champion.calibration_error
        if np.isfinite(gap):
            found.append(within(GATE, "calibration error, growth", gap, -np.inf, rules.calibration_slack))
    return found


def _not_worse(metric: str, paired: Paired, margin: float, opponent: str) -> Finding:
    reason = (
        f"{paired.challenger:.4f} against {paired.champion:.4f}, relative {paired.relative_low:+.2%} to "
        f"{paired.relative_high:+.2%}, allowed {-margin:+.2%} or more"
    )
    fine = paired.is_not_worse(margin)
    figures = {**vars(paired), "better": paired.is_better}
    return Finding(GATE, f"{metric} not worse{opponent}", "pass" if fine else "fail", reason, figures)


def _slices(of: Comparison, metric: str, rules: OfflineRules) -> Finding:
    """Fails where a slice is worse beyond its margin, all slices taken together."""
    large = {name: mask for name, mask in of.slices.items() if mask.sum() >= rules.slice_least_users}
    values = {
        name: harm_p_value(of.challenger.per_user[metric][mask], of.champion.per_user[metric][mask], rules.slice_margin)
        for name, mask in large.items()
    }
    worse = holm(values, rules.family_error)
    figures = {
        name: {
            "users": int(mask.sum()),
            "challenger": float(of.challenger.per_user[metric][mask].mean()),
            "champion": float(of.champion.per_user[metric][mask].mean()),
            "p_value": values[name],
        }
        for name, mask in large.items()
    }
    reason = f"worse: {', '.join(worse)}" if worse else f"none of {len(large)} is worse beyond {rules.slice_margin:.0%}"
    return Finding(GATE, "slices", "fail" if worse else "pass", reason, figures)


def _ratio(check: str, ours: float, theirs: float, least: float) -> Finding:
    ratio = ours / theirs if theirs > 0 else np.inf
    return within(GATE, f"{check}, ratio", ratio, least, np.inf)

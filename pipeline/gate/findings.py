"""What checks say and what follows from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Verdict = Literal["pass", "fail", "unknown"]
GateName = Literal["G0 data", "G1 offline", "G2 off-policy", "G3 parity", "G4 cost", "G5 infra", "G6 policy"]
GATES: tuple[GateName, ...] = (
    "G0 data", "G1 offline", "G2 off-policy", "G3 parity", "G4 cost", "G5 infra", "G6 policy",
)  # fmt: skip
MAY_BE_UNKNOWN = frozenset({"G2 off-policy"})
"""Gates whose "unknown" sends a release to a canary instead of refusing it, where the rules allow that."""


@dataclass(frozen=True)
class Finding:
    """One check.

    Attributes:
        gate: Which gate it belongs to.
        check: Its name.
        verdict: pass, fail, or unknown where it could not be decided, which is no pass.
        reason: For people: what was found against what was allowed.
        figures: Plain JSON values behind it.
    """

    gate: GateName
    check: str
    verdict: Verdict
    reason: str
    figures: dict[str, Any] = field(default_factory=dict)


def within(gate: GateName, check: str, value: float, low: float, high: float) -> Finding:
    """Passes where ``low <= value <= high``; NaN fails."""
    inside = low <= value <= high
    reason = f"{value:.4g}, allowed {low:.4g} to {high:.4g}"
    return Finding(gate, check, "pass" if inside else "fail", reason, {"value": value, "low": low, "high": high})


def gate_verdict(findings: Sequence[Finding]) -> Verdict:
    """One fail fails; else one unknown is unknown; nothing checked is unknown."""
    verdicts = {finding.verdict for finding in findings}
    if "fail" in verdicts:
        return "fail"
    return "pass" if verdicts == {"pass"} else "unknown"


@dataclass(frozen=True)
class GateReport:
    """Everything a gate run found.

    Attributes:
        challenger: Release id.
        challenger_digest: sha256 of the release's manifest.
        champion: Release id of the live release; None for the first one.
        rules_digest: sha256 of the rules.
        created: ISO time, UTC.
        findings: In the order of the gates.
        off_policy_required: Whether "unknown" of G2 refuses.
        better: The lower bound of the difference in NDCG is above 0.
        seconds: How long it took.
    """

    challenger: str
    challenger_digest: str
    champion: str | None
    rules_digest: str
    created: str
    findings: tuple[Finding, ...]
    off_policy_required: bool
    better: bool = False
    seconds: float = 0.0

    @property
    def verdicts(self) -> dict[str, Verdict]:
        """Of each gate; a gate that was not run is unknown."""
        return {name: gate_verdict([f for f in self.findings if f.gate == name]) for name in GATES}

    @property
    def passed(self) -> bool:
        """Every gate passes; off-policy evidence may be unknown where the rules do not require it."""
        spared = frozenset() if self.off_policy_required else MAY_BE_UNKNOWN
        return all(v == "pass" or (v == "unknown" and name in spared) for name, v in self.verdicts.items())

    @property
    def canary_only(self) -> bool:
        """Passed without off-policy evidence: may start with a small share of users only."""
        return self.passed and any(verdict == "unknown" for verdict in self.verdicts.values())

    @property
    def refusals(self) -> tuple[str, ...]:
        """Why not, in words; empty where it passed."""
        spared = frozenset() if self.off_policy_required else MAY_BE_UNKNOWN
        told = tuple(
            f"{f.gate}, {f.check}: {f.reason}"
            for f in self.findings
            if f.verdict == "fail" or (f.verdict == "unknown" and f.gate not in spared)
        )
        checked = {finding.gate for finding in self.findings}
        return told + tuple(f"{name}: not run" for name in GATES if name not in checked and name not in spared)

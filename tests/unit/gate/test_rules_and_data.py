"""Rules that fail closed, data quality, and when publishing is allowed."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from core.errors import GateError
from core.sections import GateSettings
from core.settings import ROOT
from pipeline.gate.data_quality import DataFacts, check_data, count_labels
from pipeline.gate.findings import GATES, Finding, GateReport, gate_verdict
from pipeline.gate.policy import check_policy, in_window
from pipeline.gate.rules import read_rules

RULES = read_rules(GateSettings().rules)
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)  # a Monday
GOOD = DataFacts(1_000, 900.0, 5_000, 10, 10, 10, 0, 20_000, 1_000, 20, 5)


@pytest.mark.parametrize(
    "line", [line for line in (ROOT / GateSettings().rules).read_text().splitlines() if "=" in line]
)
def test_rules_without_one_key_do_not_run(tmp_path: Path, line: str) -> None:
    text = (ROOT / GateSettings().rules).read_text()
    file = tmp_path / "rules.toml"
    file.write_text(text.replace(line, "", 1))
    with pytest.raises(GateError, match="Field required"):
        read_rules(file)


def test_misspelled_key_does_not_run(tmp_path: Path) -> None:
    file = tmp_path / "rules.toml"
    file.write_text((ROOT / GateSettings().rules).read_text().replace("[offline]\nmargin", "[offline]\nmargn"))
    with pytest.raises(GateError):
        read_rules(file)


def test_missing_rules_file_does_not_run(tmp_path: Path) -> None:
    with pytest.raises(GateError, match="no rules"):
        read_rules(tmp_path / "none.toml")


def test_good_data_passes() -> None:
    assert gate_verdict(check_data(GOOD, RULES.data)) == "pass"


@pytest.mark.parametrize(
    ("check", "changes"),
    [
        ("new labels", {"events": 3}),
        ("volume against earlier runs", {"usual_events": 10_000.0}),
        ("duplicates", {"duplicates": 4_000}),
        ("late events", {"late": 4_000}),
        ("quarantined", {"quarantined": 4_000}),
        ("values that are not finite", {"not_finite": 1}),
        ("items that spike", {"spiking_items": 1}),
        ("label rate", {"positive_labels": 0}),
        ("labels of one user", {"largest_user": 900}),
        ("labels of unknown items", {"unknown_items": 900}),
    ],
)
def test_bad_data_fails_by_its_own_check(check: str, changes: dict[str, float]) -> None:
    findings = check_data(replace(GOOD, **changes), RULES.data)  # type: ignore[arg-type]
    assert check in {finding.check for finding in findings if finding.verdict == "fail"}


def test_labels_are_counted() -> None:
    users, items = np.array(["a", "a", "b"]), np.array(["x", "y", "z"])
    facts = count_labels(users, items, np.array([1.0, np.inf, np.nan]), frozenset({"x", "y"}))
    assert (facts.events, facts.largest_user, facts.unknown_items, facts.not_finite) == (3, 2, 1, 1)


def test_publishes_per_day_are_limited() -> None:
    rules = RULES.policy.model_copy(update={"publishes_per_day": 2})
    recent = [NOW - timedelta(hours=1), NOW - timedelta(hours=2), NOW - timedelta(days=3)]
    assert gate_verdict(check_policy(rules, NOW, recent, False)) == "fail"
    assert gate_verdict(check_policy(rules, NOW, recent[1:], False)) == "pass"


def test_freeze_window_wraps_around_the_week() -> None:
    assert in_window("Fri 18:00 - Tue 06:00", NOW)
    assert not in_window("Fri 18:00 - Mon 06:00", NOW)
    frozen = RULES.policy.model_copy(update={"freeze": ("Mon 00:00 - Tue 00:00",)})
    assert gate_verdict(check_policy(frozen, NOW, [], True)) == "fail"
    with pytest.raises(GateError):
        in_window("weekend", NOW)


def test_approval_is_asked_for() -> None:
    rules = RULES.policy.model_copy(update={"needs_approval": True})
    assert gate_verdict(check_policy(rules, NOW, [], False)) == "fail"
    assert gate_verdict(check_policy(rules, NOW, [], True)) == "pass"


def report(**verdicts: str) -> GateReport:
    given = {name: verdicts.get(name.split()[0], "pass") for name in GATES}
    findings = tuple(Finding(name, "check", given[name], "why") for name in GATES if given[name])  # type: ignore[arg-type]
    return GateReport("r2", "d", "r1", "x", "t", findings, off_policy_required=False)


def test_unknown_off_policy_passes_as_a_canary_only() -> None:
    assert report().passed
    assert not report().canary_only
    assert report(G2="unknown").canary_only
    assert not replace(report(G2="unknown"), off_policy_required=True).passed


@pytest.mark.parametrize("gate", [name.split()[0] for name in GATES])
def test_one_failed_gate_refuses(gate: str) -> None:
    assert not report(**{gate: "fail"}).passed
    assert report(**{gate: "fail"}).refusals


def test_gate_that_was_not_run_is_no_pass() -> None:
    assert not report(G5="").passed
    assert "G5 infra: not run" in report(G5="").refusals

"""The gate as a whole: every check in order, the report, and a blessing only where all is well."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from core.artifacts import Artifact, parent_artifact
from core.dataset import load_dataset
from core.errors import ConchError
from core.progress import SILENT, Progress
from core.settings import Settings
from feedback.estimates import LoggedChoices, Support, judge
from pipeline.gate.data_quality import DataFacts, check_data
from pipeline.gate.findings import Finding, GateReport
from pipeline.gate.offline import check_offline
from pipeline.gate.policy import check_policy
from pipeline.gate.report import bless, write_report
from pipeline.gate.rules import GateRules, read_rules
from pipeline.gate.served import check_served
from pipeline.gate.window import Window, compare_releases, known_until, later_window
from serving.local import LocalPipeline


@dataclass(frozen=True)
class Evidence:
    """What the gate cannot read from the releases themselves.

    Attributes:
        data: Counts of the run's new data.
        choices: Logged choices with both releases' probabilities; None where there are none.
        by_champion: bool ``(n,)``, see ``feedback.estimates.judge``.
        published: Times of earlier publishes.
        approved: A person named this release.
    """

    data: DataFacts
    choices: LoggedChoices | None = None
    by_champion: np.ndarray | None = None
    published: Sequence[datetime] = field(default_factory=tuple)
    approved: bool = False


@dataclass(frozen=True)
class Ruling:
    """What a gate run left behind.

    Attributes:
        report: The findings.
        file: The report's JSON.
        blessing: Signed; None where the release was refused.
    """

    report: GateReport
    file: Path
    blessing: Path | None


def run_gate(
    settings: Settings,
    challenger: Artifact,
    champion: Artifact | None,
    evidence: Evidence,
    progress: Progress = SILENT,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Ruling:
    """Judges a release against the live one and writes the report.

    Args:
        settings: Section ``gate``, and what the private servers need.
        challenger: Release artefact, assembled and not installed.
        champion: The live release's artefact; None for the first one.
        evidence: See there.
        progress: Gets one line.
        now: Clock.

    Raises:
        GateError: The rules cannot be read, or the later window is no evidence.
    """
    started = time.perf_counter()
    rules = read_rules(settings.gate.rules)
    created = now()
    rng = np.random.default_rng(settings.gate.seed)
    challenger.verify()
    release_id = str(challenger.manifest.tensors["release_id"])
    found = check_data(evidence.data, rules.data)
    offline, window = _offline(settings, challenger, champion, rules, rng)
    found += offline
    found.append(_off_policy(evidence, rules, rng))
    if settings.gate.servers == "triton":
        users = [str(user) for user in window.dataset.users.ids[window.user_rows][:200]] or ["conch-gate"]
        paths = challenger.path, champion.path if champion is not None else None
        served = {"parity": rules.parity, "cost": rules.cost, "infra": rules.infra}
        found += check_served(settings, *paths, users, **served)  # type: ignore[arg-type]
    found += check_policy(rules.policy, created, evidence.published, evidence.approved)
    report = GateReport(
        challenger=release_id,
        challenger_digest=challenger.manifest.digest(),
        champion=None if champion is None else str(champion.manifest.tensors["release_id"]),
        rules_digest=rules.digest(),
        created=created.isoformat(timespec="seconds"),
        findings=tuple(found),
        off_policy_required=rules.off_policy.required,
        better=any(f.check.startswith("ndcg") and f.figures.get("better", False) for f in offline),
        seconds=time.perf_counter() - started,
    )
    file = write_report(report, settings.paths.var)
    blessing = bless(report, file, settings.paths.var, created)
    word = "canary only" if report.canary_only else "passed" if report.passed else "refused"
    progress.say(
        f"gate: {release_id} {word}, {report.seconds:.1f} s" + "".join(f"\n  {why}" for why in report.refusals)
    )
    return Ruling(report, file, blessing)


def _offline(
    settings: Settings, challenger: Artifact, champion: Artifact | None, rules: GateRules, rng: np.random.Generator
) -> tuple[list[Finding], Window]:
    var, threads = settings.paths.var, settings.serving.local_threads
    dataset = load_dataset(parent_artifact(challenger, var, "dataset"))
    fit = tuple(challenger.manifest.tensors["fit"])
    window = later_window(dataset, fit, settings.gate.max_users, rng)
    since, champion_since = known_until(dataset, fit), 0.0
    if len(window.user_rows) == 0:
        return [Finding("G1 offline", "users", "unknown", "nobody has a later event")], window
    if champion is not None:
        old = load_dataset(parent_artifact(champion, var, "dataset"))
        champion_since = known_until(old, tuple(champion.manifest.tensors["fit"]))
    with LocalPipeline(challenger.path, threads=threads) as ours:
        theirs = LocalPipeline(champion.path, threads=threads) if champion is not None else None
        try:
            comparison = compare_releases(
                ours, theirs, window, rules.offline, since=since, champion_since=champion_since, rng=rng
            )
        finally:
            if theirs is not None:
                theirs.close()
    return check_offline(comparison, rules.offline, rng, settings.gate.resamples), window


def _off_policy(evidence: Evidence, rules: GateRules, rng: np.random.Generator) -> Finding:
    of = rules.off_policy
    if evidence.choices is None:
        return Finding("G2 off-policy", "estimates", "unknown", "no logged choices with propensities")
    support = Support(of.least_choices, of.effective_share, of.overlap, of.largest_weight_share)
    try:
        found = judge(evidence.choices, support, margin=of.margin, rng=rng, by_champion=evidence.by_champion)
    except ConchError as error:
        return Finding("G2 off-policy", "estimates", "fail", error.what)
    return Finding("G2 off-policy", "estimates", found.verdict, found.reason, found.as_facts())

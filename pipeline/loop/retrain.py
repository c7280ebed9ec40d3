"""One run of the loop, from new labels to a live or a refused release."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from core.artifacts import Artifact, latest_artifact
from core.dataset import load_dataset
from core.errors import ArtifactError, ConchError
from core.progress import SILENT, Progress
from core.settings import Settings
from feedback.estimates import LoggedChoices
from pipeline.gate.data_quality import DataFacts, count_labels
from pipeline.gate.rules import read_rules
from pipeline.gate.run import Evidence, Ruling, run_gate
from pipeline.loop.challenger import Mode, make_challenger
from pipeline.loop.inputs import Labels, prepare_data
from pipeline.loop.journal import Action, Decision, Journal
from training.data.stage import build_dataset

BASE_FILE = "base.txt"


class Publishing(Protocol):
    """Puts releases live; see ``pipeline.loop.publishing``."""

    def champion(self) -> Artifact | None:
        """The live release; None before the first one."""

    def publish(self, release: Artifact, reason: str, *, canary_only: bool) -> Action:
        """Makes a blessed release live, or a canary; says which."""


@dataclass(frozen=True)
class Run:
    """What is asked for.

    Attributes:
        trigger: manual, time, volume, drift, decay.
        labels: All of them, not only the newest.
        choices: Logged choices for G2, where a caller has them.
        approved: A person approved what comes out.
        is_asked: A person asked: the least number of new labels does not hold then.
    """

    trigger: str
    labels: Labels
    choices: LoggedChoices | None = None
    approved: bool = False
    is_asked: bool = False


def retrain(
    settings: Settings,
    run: Run,
    publishing: Publishing,
    progress: Progress = SILENT,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Decision:
    """Builds the dataset, trains, exports, judges, publishes or refuses; the decision is on record with its reason.

    A failure in training (NaN, memory, data) is a decision as well: the live release stays, nothing is half done.

    Args:
        settings: All of them.
        run: What is asked for.
        publishing: Where releases go live.
        progress: Where bars and lines go.
        now: Clock.

    Raises:
        GateError: The gate's rules cannot be read: checked before anything is trained.
    """
    started = time.perf_counter()
    read_rules(settings.gate.rules)
    journal = Journal(settings.paths.var)
    champion = publishing.champion()
    blank = Decision(now().isoformat(timespec="seconds"), run.trigger, "skipped", "", champion=_id(champion))
    fresh = len(run.labels) - _known_labels(journal)
    if champion is not None and not run.is_asked and fresh < settings.retrain.least_events:
        reason = f"not enough data: {fresh} new labels, needed {settings.retrain.least_events}"
        return journal.add(replace(blank, reason=reason))
    figures: dict[str, Any] = {"labels": len(run.labels), "new_labels": fresh, "manifest": run.labels.manifest}
    try:
        base = base_dataset(settings, progress)
        own = prepare_data(settings, base, run.labels)
        data = build_dataset(own, progress)
        evidence = Evidence(
            _facts(run, base, champion, journal, fresh), run.choices, None, journal.times("published", "canary"),
            run.approved,
        )  # fmt: skip
        rulings = []
        for mode in modes(settings, journal, champion):
            challenger = make_challenger(own, data, champion, mode, progress)
            rulings.append((mode, challenger, run_gate(own, challenger, champion, evidence, progress, now)))
        mode, challenger, ruling = best(rulings)
    except ConchError as error:
        figures["seconds"] = round(time.perf_counter() - started, 1)
        return journal.add(replace(blank, action="failed", reason=error.what, figures=figures))
    report = ruling.report
    figures |= {
        "mode": mode,
        "verdicts": report.verdicts,
        "report": str(ruling.file.relative_to(settings.paths.var)),
        "release_sha256": challenger.manifest.digest(),
        "challengers": {name: one.report.challenger for name, _, one in rulings},
        "seconds": round(time.perf_counter() - started, 1),
    }
    if not report.passed:
        told = replace(blank, action="refused", reason="; ".join(report.refusals), release=report.challenger)
        return journal.add(replace(told, figures=figures))
    opponent = "the live release" if report.champion else "popularity; no release was live"
    reason = f"{run.trigger}: passed the gate" + (f", better than {opponent}" if report.better else "")
    try:
        action = publishing.publish(challenger, reason, canary_only=report.canary_only and champion is not None)
    except ConchError as error:
        return journal.add(
            replace(blank, action="failed", reason=error.what, release=report.challenger, figures=figures)
        )
    return journal.add(replace(blank, action=action, reason=reason, release=report.challenger, figures=figures))


def base_dataset(settings: Settings, progress: Progress) -> Artifact:
    """The dataset that stood at the loop's start: the newest one at the first run, and that one from then on."""
    file = settings.paths.var / "loop" / BASE_FILE
    folder = settings.paths.var / "artifacts" / "dataset"
    if file.exists():
        from core.artifacts import load_artifact

        return load_artifact(folder / file.read_text(encoding="utf-8").strip())
    try:
        base = latest_artifact(settings.paths.var, "dataset")
    except ArtifactError:
        base = build_dataset(settings, progress)
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_suffix(".tmp")
    temporary.write_text(base.manifest.run_id, encoding="utf-8")
    temporary.rename(file)
    return base


def modes(settings: Settings, journal: Journal, champion: Artifact | None) -> tuple[Mode, ...]:
    """How this run trains: incremental, with a full challenger beside it now and then."""
    if champion is None or settings.retrain.mode == "full":
        return ("full",)
    trained = len(journal.times("published", "canary", "refused"))
    is_due = settings.retrain.mode == "auto" and trained % settings.retrain.full_every == 0 and trained > 0
    return ("incremental", "full") if is_due else ("incremental",)


def best(rulings: list[tuple[Mode, Artifact, Ruling]]) -> tuple[Mode, Artifact, Ruling]:
    """The challenger that passed with the highest NDCG; the best refused one where none passed."""

    def key(entry: tuple[Mode, Artifact, Ruling]) -> tuple[bool, float]:
        report = entry[2].report
        values = [
            f.figures["challenger"] for f in report.findings if f.check.startswith("ndcg") and "challenger" in f.figures
        ]
        return report.passed, float(values[0]) if values and np.isfinite(values[0]) else 0.0

    return max(rulings, key=key)


def _known_labels(journal: Journal) -> int:
    """Labels of the newest run that trained."""
    counts = [d.figures["labels"] for d in journal.read() if "labels" in d.figures and d.action != "failed"]
    return int(counts[-1]) if counts else 0


def _facts(run: Run, base: Artifact, champion: Artifact | None, journal: Journal, fresh: int) -> DataFacts:
    if champion is None:
        events = int(base.manifest.tensors["n_events"])
        return replace(run.labels.facts, events=events + len(run.labels))
    table = run.labels.table
    known = frozenset(str(item) for item in load_dataset(base).items.ids)
    values = table["value"].to_numpy(zero_copy_only=False).astype(np.float64)
    users, items = (np.array(table[name].to_pylist(), dtype=object) for name in ("user_id", "item_id"))
    counted = count_labels(users, items, values, known)
    earlier = [d.figures["new_labels"] for d in journal.read() if d.figures.get("new_labels")]
    usual = float(np.mean(earlier[-10:])) if earlier else None
    share = max(fresh, 0) / max(len(table), 1)  # shares of users and items are those of all labels
    return replace(
        run.labels.facts,
        events=max(fresh, 0),
        usual_events=usual,
        largest_user=round(counted.largest_user * share),
        unknown_items=round(counted.unknown_items * share),
        not_finite=counted.not_finite,
    )


def _id(release: Artifact | None) -> str | None:
    return None if release is None else str(release.manifest.tensors["release_id"])


def journal_lines(var: Path, last: int) -> list[str]:
    """The newest decisions, a line each."""
    return [
        f"{d.time} {d.trigger}: {d.action} {d.release or ''} {d.reason}".strip() for d in Journal(var).read()[-last:]
    ]

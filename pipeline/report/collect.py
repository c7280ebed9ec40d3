"""Everything that the report shows, gathered from the newest release and the artefacts that it was made of."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core.artifacts import Artifact, latest_artifact, parent_artifact
from core.dataset import Dataset, load_dataset
from core.errors import SettingsError
from core.metrics import hits
from core.progress import SILENT, Progress
from core.sections import Target
from core.settings import Settings
from feedback.online import OnlineMetrics
from feedback.store import store_folder
from pipeline.evaluation import check_split
from pipeline.events import open_store
from pipeline.federated_study import federated_file
from pipeline.measure import evaluate
from pipeline.privacy import privacy_file
from pipeline.question import Question, held_out
from pipeline.report.calibration import Reliability, calibrate_probabilities, reliability
from pipeline.tradeoff import measure_tradeoff
from serving.local import LocalPipeline

ONLINE_DAYS = 7
STRENGTHS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7)
"""Knob values of the diversity trade-off."""
MOST_USERS = 2_000
"""Users whose scores are calibrated; the first ones where there are more."""


@dataclass(frozen=True)
class ReportData:
    """What the page is drawn from.

    Attributes:
        release: The release artefact.
        lineage: The artefacts it was made of, dataset first.
        evaluations: Reports of ``evaluate`` by target (any; liked where the data has values).
        reliability: Of the pipeline's probabilities; None where too few users have an answer.
        tradeoff: What variety costs, see ``pipeline.tradeoff``; None where the release keeps no vectors.
        ratings: What ``conch evaluate --ratings`` wrote last; None where it was not run.
        privacy: What ``conch privacy`` wrote last; None where it was not run.
        federated: What ``conch federate --study`` wrote last; None where it was not run.
        online: What users made of each release in the last week; empty without an event store.
    """

    release: Artifact
    lineage: tuple[Artifact, ...]
    evaluations: dict[str, dict[str, Any]]
    reliability: Reliability | None
    tradeoff: dict[str, Any] | None
    ratings: dict[str, Any] | None
    privacy: dict[str, Any] | None
    federated: dict[str, Any] | None
    online: tuple[OnlineMetrics, ...]

    @property
    def curves(self) -> dict[str, dict[str, list[tuple[float, float]]]]:
        """Learning curves by model, then by curve."""
        found = {artifact.manifest.kind: artifact.manifest.metrics.get("curves", {}) for artifact in self.lineage}
        return {kind: curves for kind, curves in found.items() if curves}

    def artifact(self, kind: str) -> Artifact:
        """The artefact of the lineage with this kind. Raises KeyError where there is none."""
        return {artifact.manifest.kind: artifact for artifact in self.lineage}[kind]


def collect(settings: Settings, split: str, progress: Progress = SILENT) -> ReportData:
    """Measures the newest release and reads what its parents recorded.

    Raises:
        ArtifactError: No release yet, or a parent of it is gone.
        SettingsError: The split is unknown or was learned from.
    """
    var = settings.paths.var
    release = latest_artifact(var, "release")
    graphs = parent_artifact(release, var, "graphs")
    sources = graphs.manifest.tensors["sources"]
    lineage = [parent_artifact(graphs, var, kind) for kind in ("dataset", *sources, "ranker")]
    dataset = load_dataset(lineage[0])
    fit = tuple(release.manifest.tensors["fit"])
    check_split(split, fit, settings)
    targets: tuple[Target, ...] = ("any", "liked") if dataset.has_values else ("any",)
    with LocalPipeline(release.path, threads=settings.serving.local_threads) as pipeline:
        evaluations: dict[str, dict[str, Any]] = {
            target: evaluate(
                pipeline, dataset, fit=fit, split=split, target=target, ks=settings.evaluate.ks,
                seed=settings.train.seed, progress=progress,
            )
            for target in targets
        }  # fmt: skip
        trust = _reliability(pipeline, dataset, held_out(dataset, fit, split))
        variety = _tradeoff(pipeline, dataset, fit, split, settings)
    files = (var / "reports" / "ratings" / "ratings.json", privacy_file(var), federated_file(var))
    ratings, privacy, federated = map(_read, files)
    measured = (ratings, privacy, federated)
    return ReportData(release, (*lineage, graphs), evaluations, trust, variety, *measured, _online(settings))


def parity_of(graphs: Artifact) -> list[dict[str, Any]]:
    """What the export compared, as it was written."""
    found: list[dict[str, Any]] = json.loads(graphs.file("parity.json").read_text(encoding="utf-8"))
    return found


def _online(settings: Settings) -> tuple[OnlineMetrics, ...]:
    if not store_folder(settings.paths.var).is_dir():
        return ()
    since_ms = round((time.time() - ONLINE_DAYS * 86_400) * 1_000)
    with open_store(settings) as store:
        return tuple(store.online(since_ms, settings.labels))


def _read(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _tradeoff(
    pipeline: LocalPipeline, dataset: Dataset, fit: tuple[str, ...], split: str, settings: Settings
) -> dict[str, Any] | None:
    try:
        return measure_tradeoff(
            pipeline, dataset, fit=fit, split=split, target="any", k=settings.evaluate.ks[0], strengths=STRENGTHS,
            seed=settings.train.seed,
        )  # fmt: skip
    except SettingsError:  # no vectors in the release, or nobody to ask
        return None


def _reliability(pipeline: LocalPipeline, dataset: Dataset, question: Question) -> Reliability | None:
    """Of all recommendations to warm users: did the user take the item?"""
    places = np.flatnonzero(question.warm)[:MOST_USERS]
    if len(places) < 2:
        return None
    answers = pipeline.recommend(list(dataset.users.ids[question.user_rows[places]]), k=pipeline.max_k)
    width = max((len(answer.items) for answer in answers), default=0)
    rows = np.full((len(question.user_rows), width), -1, dtype=np.int64)
    scores = np.zeros(rows.shape)
    for place, answer in zip(places, answers, strict=True):
        rows[place, : len(answer.items)] = dataset.items.rows([item.item_id for item in answer.items])
        scores[place, : len(answer.items)] = [item.score for item in answer.items]
    shown = rows >= 0
    labels = hits(rows, question.truth)[shown]
    users = np.broadcast_to(np.arange(len(rows))[:, None], rows.shape)[shown]
    probabilities = calibrate_probabilities(scores[shown], labels, users)
    known = np.isfinite(probabilities)
    return reliability(probabilities[known], labels[known]) if known.any() else None

"""The ranker as an objective: its own held-out users decide."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from core.artifacts import load_artifact
from core.dataset import Dataset, Events, load_dataset
from core.errors import SettingsError, TrainingError
from core.progress import SILENT, Progress
from core.settings import Settings, change_settings
from training.models.ranker import Ranker
from training.ranking.examples import propose
from training.ranking.fit import RecallSet, fit_ranker, fit_recall_set
from training.stage import use_hardware
from training.tuning.costs import measure_latency, size_bytes, typical_user
from training.tuning.objective import Measurement, Report
from training.tuning.windows import TUNED_ON, without_test

METRIC = "ndcg@10"
"""What the ranker's own label window is measured by."""


@dataclass(frozen=True)
class RankerJob:
    """All that a process needs to measure the ranker's settings; see :class:`RecallJob`."""

    settings: Settings
    data: Path
    timed: bool = False
    model: str = "ranker"
    steps: int = 1
    metric: str = METRIC

    def build(self) -> RankerObjective:
        """The objective, in this process."""
        if self.settings.tune.metric != METRIC:
            raise SettingsError(
                "the ranker is measured by its own held-out metric",
                where="tune.metric",
                expected=METRIC,
                found=self.settings.tune.metric,
            )
        use_hardware(self.settings)
        return RankerObjective(self, load_dataset(load_artifact(self.data)))


class RankerObjective:
    """NDCG@10 on the later label window of ``training.ranking``, by a network that the earlier window taught.

    Recall is fitted once per set of events and settings outside [ranker], whatever the number of trials.

    Args:
        job: Settings.
        dataset: Its test events are dropped before anything looks at it.
    """

    def __init__(self, job: RankerJob, dataset: Dataset) -> None:
        train = job.settings.train.model_copy(update={"fit": TUNED_ON})
        self._settings = job.settings.model_copy(update={"train": train})
        self._timed = job.timed
        self._dataset = without_test(dataset)
        self._known: dict[int, RecallSet] = {}
        self._known_of = ""
        self._reference: Ranker | None = None
        self._reference_ms: float | None = None

    @property
    def scheme(self) -> str:
        """Not the windows of [tune]."""
        return "the ranker's own label windows"

    def anchor(self, baseline: Measurement) -> None:
        """Latencies are told relative to the settings as they are."""
        self._reference_ms = baseline.values.get("latency_ms")

    def measure(self, values: Mapping[str, Any], report: Report) -> Measurement:
        """Quality is the ranker's; the standard error is that of the network's gain over the blend."""
        settings = change_settings(self._settings, values)
        fit = self._fit(settings)
        metrics = fit.metrics
        if not metrics["users"]:
            raise TrainingError("no user has a past and a later event", where="the ranker's label windows")
        found = {"quality": float(metrics["ndcg@10_ranker"]), "size_bytes": float(size_bytes(fit.model))}
        if self._timed:
            found["latency_ms"] = self._time(fit.model, settings)
        report(1, found["quality"])
        return Measurement(found, float(metrics["network_gain_standard_error"]), {"metrics": metrics})

    def _fit(self, settings: Settings) -> Any:
        seed = settings.train.seed
        events = self._dataset.events.of_splits(TUNED_ON)
        recall = self._recall(self._dataset, events, settings, seed, SILENT)
        return fit_ranker(self._dataset, settings, seed=seed, recall=recall, fit_recall=self._recall)

    def _recall(self, dataset: Dataset, events: Events, settings: Settings, seed: int, progress: Progress) -> RecallSet:
        others = settings.model_dump_json(exclude={"ranker", "tune"})
        if others != self._known_of:  # trials that change recall itself cannot share it
            self._known.clear()
            self._known_of = others
        key = hash((events.user_rows.tobytes(), events.item_rows.tobytes()))
        if key not in self._known:
            self._known[key] = fit_recall_set(dataset, events, settings, seed, progress)
        return self._known[key]

    def _time(self, ranker: Ranker, settings: Settings) -> float:
        """Milliseconds of the rank step for a typical user with the candidates that recall proposes."""
        if self._reference is None:
            self._reference = self._fit(self._settings).model
        inputs = self._inputs(settings)
        timing = measure_latency(partial(ranker, *inputs), partial(self._reference, *inputs))
        return timing.against(self._reference_ms)

    def _inputs(self, settings: Settings) -> tuple[Tensor, ...]:
        events = self._dataset.events
        padded, codes = typical_user(self._dataset, events)
        recall = self._recall(self._dataset, events, settings, settings.train.seed, SILENT)
        with torch.no_grad():
            lists = [part for model in recall.models.values() for part in propose(model, padded, codes)]
        history = (padded.rows, padded.ages, padded.values)
        return (*(torch.from_numpy(np.ascontiguousarray(part)) for part in history), codes, *lists)

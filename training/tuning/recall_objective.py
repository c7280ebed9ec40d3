"""Recall models as an objective: fitted before each window, measured on it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from core.artifacts import load_artifact
from core.dataset import Dataset, load_dataset
from core.progress import SILENT
from core.settings import Settings, change_settings
from training.models.fitters import fitter
from training.models.recall_base import AfterEpoch, RecallModel
from training.ranking.examples import propose
from training.ranking.windows import Window
from training.stage import use_hardware
from training.tuning.costs import measure_latency, size_bytes, typical_user
from training.tuning.objective import Measurement, Report
from training.tuning.scoring import UserValues, mean_over_windows, metric_of, score_window
from training.tuning.windows import rolling_windows, without_test

LOOKS_PER_WINDOW = 4
"""Values reported per window by a model that can be looked at between its epochs; the last is the window's own."""


@dataclass(frozen=True)
class RecallJob:
    """All that a process needs to measure a recall model's settings; plain enough to be sent to it.

    Attributes:
        model: Name of a registered recall model.
        settings: What the trial's values change.
        data: Folder of the dataset artefact.
        timed: Whether latency is measured, which takes one more fit per process.
    """

    model: str
    settings: Settings
    data: Path
    timed: bool = False

    @property
    def steps(self) -> int:
        """Most values that a trial reports."""
        return LOOKS_PER_WINDOW * self.settings.tune.windows

    @property
    def metric(self) -> str:
        """What quality is."""
        return self.settings.tune.metric

    def build(self) -> RecallObjective:
        """The objective, in this process."""
        use_hardware(self.settings)
        metric_of(self.metric, self.settings.recall.candidates)
        return RecallObjective(self, load_dataset(load_artifact(self.data)))


class RecallObjective:
    """See :class:`training.tuning.objective.Objective`.

    Args:
        job: Model and settings.
        dataset: Its test events are dropped before anything looks at it.
    """

    def __init__(self, job: RecallJob, dataset: Dataset) -> None:
        self._job = job
        self._fit_model = fitter(job.model)
        self._looks = "after_epoch" in inspect.signature(self._fit_model).parameters
        self._dataset = without_test(dataset)
        self._rolling = rolling_windows(self._dataset, job.settings.tune)
        self._reference: RecallModel | None = None
        self._reference_ms: float | None = None

    @property
    def scheme(self) -> str:
        """Windows of time, or folds."""
        count = len(self._rolling.windows)
        return f"{count} windows of time" if self._rolling.scheme == "time" else f"{count} folds of each user's events"

    def anchor(self, baseline: Measurement) -> None:
        """Latencies are told relative to the settings as they are."""
        self._reference_ms = baseline.values.get("latency_ms")

    def measure(self, values: Mapping[str, Any], report: Report) -> Measurement:
        """Quality is the metric's mean over the windows; details hold each window's."""
        tune = self._job.settings.tune
        settings = change_settings(self._job.settings, values)
        scored: list[UserValues] = []
        for number, window in enumerate(self._rolling.windows):
            model = self._fit(settings, window, partial(self._look, scored, number, window, report))
            scored.append(self._score(model, window))
            report(LOOKS_PER_WINDOW * (number + 1), mean_over_windows(scored)[0])
        mean, deviations = mean_over_windows(scored)
        found = {"quality": mean, "size_bytes": float(size_bytes(model))}
        details = {
            window.name: {"users": len(part.users), tune.metric: round(float(part.values.mean()), 6)}
            for window, part in zip(self._rolling.windows, scored, strict=True)
        }
        if self._job.timed:
            found["latency_ms"] = self._time(model)
        return Measurement(found, float(np.linalg.norm(deviations)), {"windows": details}, deviations)

    def _fit(self, settings: Settings, window: Window, look: AfterEpoch | None) -> RecallModel:
        more: dict[str, Any] = {"after_epoch": look} if self._looks and look else {}
        return self._fit_model(self._dataset, window.past, settings, seed=settings.train.seed, progress=SILENT, **more)

    def _look(
        self,
        scored: list[UserValues],
        number: int,
        window: Window,
        report: Report,
        share: float,
        making: Callable[[], RecallModel],
    ) -> None:
        """Reports the model in the making whenever a quarter of its epochs is done; the whole is the window's own."""
        quarter = share * LOOKS_PER_WINDOW
        if share < 1 and abs(quarter - round(quarter)) < 1e-9:
            so_far, _ = mean_over_windows([*scored, self._score(making(), window)])
            report(LOOKS_PER_WINDOW * number + round(quarter), so_far)

    def _score(self, model: RecallModel, window: Window) -> UserValues:
        tune = self._job.settings.tune
        rng = np.random.default_rng(tune.seed)
        return score_window(model, self._dataset, window, tune.metric, max_users=tune.max_users, rng=rng)

    def _time(self, model: RecallModel) -> float:
        """Milliseconds for a typical user of the last window's past."""
        window = self._rolling.windows[-1]
        if self._reference is None:
            self._reference = self._fit(self._job.settings, window, None)
        padded, codes = typical_user(self._dataset, window.past)
        timing = measure_latency(
            partial(propose, model, padded, codes), partial(propose, self._reference, padded, codes)
        )
        return timing.against(self._reference_ms)

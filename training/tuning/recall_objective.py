"""Recall models as an objective: fitted before each window, measured on it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from core.artifacts import load_artifact
from core.dataset import Dataset, histories_of, load_dataset
from core.histories import pad
from core.progress import SILENT
from core.settings import Settings, change_settings
from training.models.recall_base import RecallModel
from training.ranking.examples import propose
from training.ranking.windows import Window
from training.stage import RECALL_FITTERS, use_hardware
from training.tuning.costs import measure_latency, size_bytes
from training.tuning.scoring import UserValues, mean_over_windows, metric_of, score_window
from training.tuning.study import Measurement, Report
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

    def build(self) -> RecallObjective:
        """The objective, in this process."""
        use_hardware(self.settings)
        return RecallObjective(self, load_dataset(load_artifact(self.data)))

    @property
    def steps(self) -> int:
        """Most values that a trial reports."""
        return LOOKS_PER_WINDOW * self.settings.tune.windows


class RecallObjective:
    """See :class:`training.tuning.study.Objective`.

    Args:
        job: Model and settings.
        dataset: Its test events are dropped before anything looks at it.
    """

    def __init__(self, job: RecallJob, dataset: Dataset) -> None:
        self._job = job
        self._dataset = without_test(dataset)
        self._tune = job.settings.tune
        self.rolling = rolling_windows(self._dataset, self._tune)
        self._reference: Callable[[], object] | None = None

    def measure(self, values: Mapping[str, Any], report: Report) -> Measurement:
        """Quality is the metric's mean over the windows; details hold each window's."""
        settings = change_settings(self._job.settings, values)
        metric_of(self._tune.metric, settings.recall.candidates)
        scored: list[UserValues] = []
        for number, window in enumerate(self.rolling.windows):
            look = partial(self._look, scored, number, window, report)
            model = self._fit(settings, window, look)
            scored.append(self._score(model, window))
            report(LOOKS_PER_WINDOW * (number + 1), mean_over_windows(scored)[0])
        mean, error = mean_over_windows(scored)
        found = {"quality": mean, "size_bytes": float(size_bytes(model))}
        details: dict[str, Any] = {
            "windows": {
                window.name: {"users": len(part.users), self._tune.metric: round(float(part.values.mean()), 6)}
                for window, part in zip(self.rolling.windows, scored, strict=True)
            }
        }
        if self._job.timed:
            found["latency_ms"], details["latency_ratio"] = self._time(model)
        return Measurement(found, error, details)

    def _fit(self, settings: Settings, window: Window, look: Callable[[int, RecallModel], None]) -> RecallModel:
        fit = RECALL_FITTERS[self._job.model]
        more = {"after_epoch": look} if "after_epoch" in inspect.signature(fit).parameters else {}
        return fit(self._dataset, window.past, settings, seed=settings.train.seed, progress=SILENT, **more)

    def _look(
        self, scored: list[UserValues], number: int, window: Window, report: Report, share: float, model: RecallModel
    ) -> None:
        """Reports the model in the making when another quarter of its epochs is done; the last is the fit's own."""
        quarter = share * LOOKS_PER_WINDOW
        if share < 1 and abs(quarter - round(quarter)) < 1e-9:
            so_far = mean_over_windows([*scored, self._score(model, window)])[0]
            report(LOOKS_PER_WINDOW * number + round(quarter), so_far)

    def _score(self, model: RecallModel, window: Window) -> UserValues:
        rng = np.random.default_rng(self._tune.seed)
        return score_window(
            model, self._dataset, window, self._tune.metric, max_users=self._tune.max_users, rng=rng
        )

    def _time(self, model: RecallModel) -> tuple[float, float]:
        """Milliseconds for the user with the median history of the last window, and against the settings as they are.

        One thread, as one request is served; the ratio cancels how busy the machine was.
        """
        window = self.rolling.windows[-1]
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            if self._reference is None:
                unchanged = self._fit(self._job.settings, window, lambda share, model: None)
                self._reference = partial(self._answer, unchanged, window)
            timing = measure_latency(partial(self._answer, model, window), self._reference)
        finally:
            torch.set_num_threads(threads)
        return timing.latency_ms, round(timing.ratio, 4)

    def _answer(self, model: RecallModel, window: Window) -> object:
        return propose(model, self._one_user(window))

    def _one_user(self, window: Window) -> Any:
        histories = histories_of(window.past, self._dataset.n_users)
        users = np.unique(window.future.user_rows)
        middle = users[np.argsort(histories.lengths[users], kind="stable")[len(users) // 2]]
        return pad(histories.select(np.array([middle])), self._dataset.n_items)


def with_threads(settings: Settings, threads: int) -> Settings:
    """The same settings for a process that may use ``threads``."""
    return settings.model_copy(update={"train": replace_threads(settings, threads)})


def replace_threads(settings: Settings, threads: int) -> Any:
    """The train section with another number of threads."""
    return settings.train.model_copy(update={"threads": threads})


__all__ = ["RecallJob", "RecallObjective", "replace", "with_threads"]

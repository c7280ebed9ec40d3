"""Fits whose work is shared by workers: started here, done by the models' own fits, read back from files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from core.artifacts import Artifact, load_artifact, write_json
from core.dataset import load_dataset
from core.progress import SILENT, Progress
from core.settings import Settings, change_settings
from training.checkpoints import Checkpoints
from training.continuation import Continuation
from training.distributed.launch import Seat, run_workers
from training.distributed.sharing import Sharing
from training.models.fitters import FITTERS
from training.models.ranker import restore_ranker, save_ranker
from training.models.recall import RecallModel, load_model, restore_model, save_model
from training.ranking.fit import RankerFit, fit_ranker
from training.ranking.sources import RecallSet, fit_recall_set

FACTS, KEPT, CHECKPOINTS = "facts.json", "kept.safetensors", "checkpoints"


@dataclass(frozen=True)
class RecallTask:
    """One recall model, by all workers.

    Attributes:
        name: mf or gat.
        data: Folder of the dataset artefact.
        settings: All settings.
        continuation: What to go on from. Without checkpoints they are kept in the workers' folder: what a worker that
            is killed costs ends with the fit.
    """

    name: str
    data: Path
    settings: Settings
    continuation: Continuation

    def __call__(self, seat: Seat) -> None:
        dataset = load_dataset(load_artifact(self.data))
        settings = change_settings(self.settings, {"train.device": seat.device})
        checkpoints = self.continuation.checkpoints or Checkpoints(seat.folder / CHECKPOINTS, self.name)
        continuation = replace(self.continuation, checkpoints=checkpoints.told_to(seat.progress), kept={})
        model = FITTERS[self.name](  # type: ignore[call-arg]  # those of SHARED take more than a Fitter
            dataset,
            dataset.events.of_splits(settings.train.fit),
            settings,
            seed=settings.train.seed,
            progress=seat.progress,
            continuation=continuation,
            group=seat.group,
        )
        if seat.group.is_first:
            write_json(seat.folder / FACTS, save_model(model, seat.folder))
            save_file(continuation.kept, seat.folder / KEPT)


def fit_recall_by_workers(
    name: str, data: Artifact, settings: Settings, progress: Progress, continuation: Continuation | None
) -> RecallModel:
    """The recall model as one process would fit it, by ``train.workers`` of them.

    Args:
        name: One of ``training.models.fitters.SHARED``.
        data: The dataset.
        settings: All settings.
        progress: Where bars and lines go.
        continuation: As of the model's fit; its ``kept`` is filled.

    Raises:
        ConchError: As the fit itself, or see ``run_workers``.
    """
    asked = continuation or Continuation()
    if asked.checkpoints is not None:  # they travel, a terminal does not
        asked = replace(asked, checkpoints=asked.checkpoints.told_to(SILENT))
    task = RecallTask(name, data.path, settings, asked)
    with run_workers(task, settings.train, settings.paths.var, progress) as folder:
        asked.kept.update(load_file(folder / KEPT))
        return restore_model(folder, _facts(folder))


@dataclass(frozen=True)
class RankerTask:
    """The ranker, by all workers.

    Attributes:
        data: Folder of the dataset artefact.
        sources: Folders of the shipped recall models, in the order of ``recall.sources``.
        settings: All settings.
    """

    data: Path
    sources: dict[str, Path]
    settings: Settings

    def __call__(self, seat: Seat) -> None:
        settings = change_settings(self.settings, {"train.device": seat.device})
        checkpoints = Checkpoints(seat.folder / CHECKPOINTS, "ranker", seat.progress)
        sharing = Sharing(seat.group, settings.train, checkpoints)
        fit = fit_ranker(
            load_dataset(load_artifact(self.data)),
            settings,
            seed=settings.train.seed,
            recall=RecallSet({name: load_model(load_artifact(folder)) for name, folder in self.sources.items()}),
            progress=seat.progress,
            fit_recall=partial(fit_recall_set, sharing=sharing),
            sharing=sharing,
        )
        if seat.group.is_first:
            write_json(seat.folder / FACTS, {**save_ranker(fit.model, seat.folder), "metrics": fit.metrics})


def fit_ranker_by_workers(
    data: Artifact, sources: Mapping[str, Artifact], settings: Settings, progress: Progress
) -> RankerFit:
    """The ranker as one process would fit it, by ``train.workers`` of them.

    Args:
        data: The dataset.
        sources: The shipped recall models.
        settings: All settings.
        progress: Where bars and lines go.

    Raises:
        ConchError: As ``fit_ranker``, or see ``run_workers``.
    """
    task = RankerTask(data.path, {name: artifact.path for name, artifact in sources.items()}, settings)
    with run_workers(task, settings.train, settings.paths.var, progress) as folder:
        facts = _facts(folder)
        return RankerFit(restore_ranker(folder, facts), facts["metrics"])


def _facts(folder: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((folder / FACTS).read_text(encoding="utf-8"))
    return facts

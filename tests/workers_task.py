"""What the workers of the tests do; in a file of its own, since they are processes that import it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from core.artifacts import load_artifact
from core.dataset import Dataset, load_dataset
from core.histories import PaddedHistories, pad
from core.progress import Silent
from core.settings import Settings
from training.checkpoints import Checkpoints
from training.continuation import Continuation
from training.distributed.launch import Seat
from training.distributed.sharing import Sharing
from training.models.gat import fit_gat
from training.models.mf import fit_mf
from training.models.ranker import Ranker
from training.models.recall_base import RecallModel
from training.ranking.examples import propose
from training.ranking.fit import fit_ranker
from training.ranking.sources import RecallSet, fit_recall_set
from training.requests import user_codes

SEED = 1


class DiesAt(Silent):
    """Kills its process by SIGKILL when a step is told, the first time.

    Args:
        curve: Of the step.
        step: Its number.
        once: A file that remembers.
    """

    def __init__(self, curve: str, step: int, once: Path) -> None:
        self._at = (curve, step)
        self._once = once

    def record(self, curve: str, step: int, value: float) -> None:
        if (curve, step) == self._at and not self._once.exists():
            self._once.touch()
            os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class Fit:
    """Fits models; the first worker leaves each one's tensors and, as ``lists``, what it gives every user.

    Attributes:
        data: Folder of the dataset artefact.
        settings: All settings.
        models: Of mf, gat and ranker, in this order.
        dies_at: Worker 1 is killed when it tells this step of this curve.
    """

    data: Path
    settings: Settings
    models: tuple[str, ...]
    dies_at: tuple[str, int] | None = None

    def __call__(self, seat: Seat) -> None:
        if self.dies_at is not None and seat.group.rank == 1:
            seat = replace(seat, progress=DiesAt(*self.dies_at, seat.folder / "died"))
        dataset = load_dataset(load_artifact(self.data))
        for name in self.models:
            fits: dict[str, Callable[[], tuple[torch.nn.Module, torch.Tensor]]] = {
                "mf": partial(self._recall, "mf", dataset, seat),
                "gat": partial(self._recall, "gat", dataset, seat),
                "ranker": partial(self._ranker, dataset, seat),
            }
            model, lists = fits[name]()
            if seat.group.is_first:
                tensors = {key: value.contiguous() for key, value in model.state_dict().items()}
                save_file({**tensors, "lists": lists.contiguous()}, seat.folder / f"{name}.safetensors")

    def _recall(self, name: str, dataset: Dataset, seat: Seat) -> tuple[RecallModel, torch.Tensor]:
        checkpoints = Checkpoints(seat.folder / "checkpoints", name, seat.progress)
        model = {"mf": fit_mf, "gat": fit_gat}[name](
            dataset,
            dataset.events.of_splits(self.settings.train.fit),
            self.settings,
            seed=SEED,
            progress=seat.progress,
            continuation=Continuation(checkpoints=checkpoints),
            group=seat.group,
        )
        with torch.no_grad():
            return model, propose(model, *self._request(dataset))[0]

    def _ranker(self, dataset: Dataset, seat: Seat) -> tuple[Ranker, torch.Tensor]:
        fitted = dataset.events.of_splits(self.settings.train.fit)
        checkpoints = Checkpoints(seat.folder / "checkpoints", "ranker", seat.progress)
        sharing = Sharing(seat.group, self.settings.train, checkpoints)
        fit_recall = partial(fit_recall_set, sharing=sharing)
        recall: RecallSet = fit_recall(dataset, fitted, self.settings, SEED, Silent())
        ranker = fit_ranker(
            dataset,
            self.settings,
            seed=SEED,
            recall=recall,
            progress=seat.progress,
            fit_recall=fit_recall,
            sharing=sharing,
        ).model
        padded, codes = self._request(dataset)
        history = [torch.from_numpy(part) for part in (padded.rows, padded.ages, padded.values)]
        with torch.no_grad():
            proposed = [part for model in recall.models.values() for part in propose(model, padded, codes)]
            return ranker, ranker(*history, codes, *proposed)[0]

    def _request(self, dataset: Dataset) -> tuple[PaddedHistories, torch.Tensor]:
        padded = pad(dataset.histories(self.settings.train.fit), dataset.n_items)
        return padded, user_codes(dataset, np.arange(dataset.n_users))

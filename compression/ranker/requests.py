"""Real requests for the ranker: histories of users with the candidates that recall proposes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from compression.task import Task
from core.errors import CompressionError
from core.histories import pad
from training.models.recall_base import RecallModel
from training.ranking.examples import propose
from training.requests import user_codes

CALIBRATION_USERS = 256
BATCH_USERS = 32


def calibration_requests(task: Task, users: int = CALIBRATION_USERS) -> list[tuple[Tensor, ...]]:
    """Inputs of the ranker for users of the split that candidates are judged on, as they stand in the fit.

    Raises:
        CompressionError: No user has a history, or there is no recall model to ask.
    """
    fitted = task.dataset.histories(task.fit)
    split = task.dataset.events.of_splits((task.settings.compress.split,))
    known = np.unique(split.user_rows)
    known = known[fitted.lengths[known] > 0]
    if not len(known) or not task.recall:
        raise CompressionError(
            "there are no requests to calibrate the ranker on",
            where=f"split {task.settings.compress.split}",
            expected="users with a history, and recall models to ask",
            found=f"{len(known):,} users, {len(task.recall)} recall models",
        )
    rng = np.random.default_rng([task.settings.compress.seed, 4])
    chosen = rng.choice(known, min(users, len(known)), replace=False)
    chosen = chosen[np.argsort(fitted.lengths[chosen], kind="stable")]
    return [
        _request(task, task.recall, chosen[start : start + BATCH_USERS]) for start in range(0, len(chosen), BATCH_USERS)
    ]


@torch.no_grad()
def _request(task: Task, recall: Mapping[str, nn.Module], users: np.ndarray) -> tuple[Tensor, ...]:
    padded = pad(task.dataset.histories(task.fit).select(users), task.dataset.n_items)
    codes = user_codes(task.dataset, users)
    lists = [part for model in recall.values() for part in propose(cast(RecallModel, model), padded, codes)]
    past = (torch.from_numpy(part) for part in (padded.rows, padded.ages, padded.values))
    return (*past, codes, *lists)

"""Ours as a peer: matrix factorisation asked and timed as the peers' programs are, see ``bench.adapters.contract``."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from bench.adapters.contract import Problem, Settings, Solved, serve
from core.dataset import Dataset, Events, histories_of
from core.features import FeatureTable
from core.histories import pad
from core.settings import load_settings
from core.vocabulary import Vocabulary
from training.models.mf import fit_mf
from training.models.mf_model import MfRecall

UNIFORM = ("mf.value_slope=0", "mf.decay_days=0", "mf.return_boost=1", "mf.popularity=0")
"""Every event weighs 1: the objective of irspack's iALS, term by term."""


def solve(problem: Problem, settings: Sequence[Settings], seed: int) -> Iterator[Solved]:
    """Settings as irspack names them: ``n_components``, ``alpha0``, ``reg``, ``train_epochs``."""
    dataset = dataset_of(problem)
    torch.set_num_threads(1)  # scoring only; the solver's threads are numba's
    for place, one in enumerate(settings):
        options = load_settings((), (*UNIFORM, *translated(problem, one)))
        started = time.perf_counter()
        model = fit_mf(dataset, dataset.events, options, seed=seed)
        seconds = time.perf_counter() - started
        yield Solved(place, _scorer(model, dataset), seconds, {"epochs": one["train_epochs"]})


def translated(problem: Problem, one: Settings) -> list[str]:
    """irspack's settings as ours. Both weigh a pair's zero by ``alpha0``; ours is relative to the events' weight."""
    filled = [len(np.unique(rows)) for rows in (problem.user_rows, problem.item_rows)]
    ratio = one["alpha0"] * filled[0] * filled[1] / len(problem.user_rows)
    return [
        f"mf.dimension={one['n_components']}",
        f"mf.epochs={one['train_epochs']}",
        f"mf.unobserved_ratio={ratio}",
        f"mf.regularisation={one['reg']}",
    ]


def dataset_of(problem: Problem) -> Dataset:
    """The problem's fitted pairs as a dataset without attributes and values."""
    count = len(problem.user_rows)
    nothing = np.zeros(count, np.float32)
    events = Events(
        problem.user_rows.astype(np.int32),
        problem.item_rows.astype(np.int32),
        problem.timestamps.astype(np.float64),
        nothing,
        np.full(count, np.nan, np.float32),
        np.zeros(count, np.uint8),
        np.zeros(count, np.uint8),
    )
    users, items = ([str(row) for row in range(size)] for size in (problem.n_users, problem.n_items))
    return Dataset(
        events,
        Vocabulary(users),
        Vocabulary(items),
        np.array(items, dtype=object),
        FeatureTable((), np.zeros((problem.n_users, 0), np.int32)),
        FeatureTable((), np.zeros((problem.n_items, 0), np.int32)),
        has_times=bool(problem.timestamps.any()),
        has_values=False,
    )


def _scorer(model: MfRecall, dataset: Dataset) -> Callable[[np.ndarray], np.ndarray]:
    """Scores of user rows ``(B,)``: the served model's, float32 ``(B, I)``."""
    histories = histories_of(dataset.events, dataset.n_users)

    def score(users: np.ndarray) -> np.ndarray:
        padded = pad(histories.select(users), dataset.n_items)
        history = (padded.rows, padded.ages, padded.values, padded.kinds)
        nothing = np.zeros((len(users), 1), np.int64)  # no attributes
        with torch.no_grad():
            scores = model.scores(*map(torch.from_numpy, (*history, nothing)))
        result: np.ndarray = scores[:, :-1].numpy()
        return result

    return score


if __name__ == "__main__":
    serve(solve, ("torch", "numba", "numpy"))

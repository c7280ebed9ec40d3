"""What a model costs to serve: bytes of weights, milliseconds for one user."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from core.dataset import Dataset, Events, histories_of
from core.histories import PaddedHistories, pad
from training.ranking.examples import user_codes

WARM_UP_ROUNDS = 5
ROUNDS = 40


@dataclass(frozen=True)
class Timing:
    """Latency at batch 1.

    Attributes:
        latency_ms: Median of the model.
        ratio: Median over rounds of the model's time against the reference's in the same round.
    """

    latency_ms: float
    ratio: float

    def against(self, reference_ms: float | None) -> float:
        """Milliseconds as they would be on a machine where the reference takes ``reference_ms``; as timed for None.

        Trials are hours apart; a machine that is busier now makes the reference slower as well.
        """
        return self.latency_ms if reference_ms is None else self.ratio * reference_ms


def size_bytes(model: nn.Module) -> int:
    """Bytes of all parameters and buffers: the payload of ``model.safetensors``."""
    return sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())


def measure_latency(
    model: Callable[[], object],
    reference: Callable[[], object],
    *,
    rounds: int = ROUNDS,
    clock: Callable[[], float] = time.perf_counter,
) -> Timing:
    """Times two models in turns, so that a busy moment of the machine hits both.

    Args:
        model: One answer for one user.
        reference: The same from the model that others are compared with.
        rounds: Pairs timed, after a few that are not.
        clock: Seconds.
    """
    pairs = np.zeros((rounds, 2))
    with torch.no_grad(), _one_thread():
        for place in range(-WARM_UP_ROUNDS, rounds):
            for column, answer in enumerate((model, reference)):
                started = clock()
                answer()
                if place >= 0:
                    pairs[place, column] = clock() - started
    return Timing(float(np.median(pairs[:, 0])) * 1000, float(np.median(pairs[:, 0] / pairs[:, 1])))


def typical_user(dataset: Dataset, past: Events) -> tuple[PaddedHistories, Tensor]:
    """Padded history ``(1, L)`` and attribute codes ``(1, F)`` of the user with the median number of past events."""
    histories = histories_of(past, dataset.n_users)
    users = np.flatnonzero(histories.lengths)
    middle = users[np.argsort(histories.lengths[users], kind="stable")[len(users) // 2]][None]
    return pad(histories.select(middle), dataset.n_items), user_codes(dataset, middle)


@contextmanager
def _one_thread() -> Iterator[None]:
    """One request is served by one thread (``serving.graph_threads``)."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)

"""What a model costs to serve: bytes of weights, milliseconds for one user."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

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
    with torch.no_grad():
        for place in range(-WARM_UP_ROUNDS, rounds):
            for column, answer in enumerate((model, reference)):
                started = clock()
                answer()
                if place >= 0:
                    pairs[place, column] = clock() - started
    return Timing(float(np.median(pairs[:, 0])) * 1000, float(np.median(pairs[:, 0] / pairs[:, 1])))

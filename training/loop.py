"""What every training loop shares: guards that stop a lost run, and the learning rate's schedule."""

from __future__ import annotations

import math

from core.dataset import Events
from core.errors import TrainingError


def check_not_empty(events: Events, model: str) -> None:
    """Raises TrainingError where there is nothing to learn from."""
    if len(events) == 0:
        raise TrainingError(
            f"no events to train {model} on",
            where="train.fit",
            expected="splits with events",
            found="none",
            next_step="check train.fit and the split quantiles data.train_until, data.valid_until",
        )


def check_finite(value: float, model: str, step: int, advice: str) -> float:
    """``value`` unchanged.

    Args:
        value: A loss, or a norm of the weights.
        model: Which model is trained.
        step: Steps done so far.
        advice: What to change in the settings.

    Raises:
        TrainingError: ``value`` is NaN or infinite.
    """
    if not math.isfinite(value):
        raise TrainingError(
            f"training of {model} diverged",
            where=f"step {step}",
            expected="a finite loss",
            found=str(value),
            next_step=advice,
        )
    return value


def cosine(step: int, steps: int) -> float:
    """Factor of the learning rate before step ``step`` of ``steps``: 1 at the start, towards 0 at the end.

    >>> [round(cosine(step, 4), 3) for step in range(4)]
    [1.0, 0.854, 0.5, 0.146]
    """
    return 0.5 * (1 + math.cos(math.pi * step / steps))

"""Optimiser steps over batches that workers share: gradients added up at each step, or weights averaged at times."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import nn

from core.progress import Progress
from core.sections import TrainSettings
from training.distributed.group import Group

FIRST_STEPS = 20
"""Losses of these steps are recorded one by one: runs that should be the same show it there."""


def shares_of(size: int, group: Group, accumulate: int) -> list[np.ndarray]:
    """Places in a batch of ``size`` examples that this worker looks at, part after part, int64.

    Dealt by stride, so that workers get about the same where examples are sorted. Small batches leave parts empty.
    """
    return [np.arange(group.rank + group.count * part, size, group.count * accumulate) for part in range(accumulate)]


class Updates:
    """Takes the steps of one training loop.

    Args:
        objective: From arguments to two scalars: the examples' share of the batch's loss (the shares of all workers and
            parts add up to it), and a penalty that depends on the weights alone.
        optimizer: Over the objective's weights.
        group: All workers.
        settings: The section ``train``.
        longest_gradient: Longer ones are shortened to this norm.
    """

    def __init__(
        self,
        objective: nn.Module,
        optimizer: torch.optim.Optimizer,
        group: Group,
        settings: TrainSettings,
        longest_gradient: float | None = None,
    ) -> None:
        self._group = group
        self._settings = settings
        self._is_apart = settings.synchronisation == "periodic" and group.count > 1
        self._objective = objective if self._is_apart else group.shared(objective)
        self._optimizer = optimizer
        self._weights = [weight for of_rate in optimizer.param_groups for weight in of_rate["params"]]
        self._longest_gradient = longest_gradient
        self._since_average = 0

    def step(self, parts: Sequence[tuple[Any, ...]]) -> float:
        """One step, each part's gradient added to those before it.

        Returns:
            The whole batch's loss, the same on all workers; where they step apart an estimate from this one's share.
        """
        self._optimizer.zero_grad(set_to_none=True)
        total = torch.zeros(())
        for at, arguments in enumerate(parts):
            with self._exchange(at == len(parts) - 1):
                with self._precision():
                    share, penalty = self._objective(*arguments)
                # gradients become a mean over the workers, which is to be the sum of their shares
                (share * self._group.count + penalty / len(parts)).backward()
            total = total + share.detach().float().cpu()
        if self._longest_gradient is not None:
            nn.utils.clip_grad_norm_(self._weights, self._longest_gradient)
        self._optimizer.step()
        if not self._is_apart:
            return float(self._group.all_reduce_sum(total))
        self._since_average += 1
        if self._since_average == self._settings.average_every:
            self.settle()
        return float(total * self._group.count)

    def settle(self) -> None:
        """Averages weights and moments where workers step apart; to be called before anything looks at them."""
        if self._is_apart and self._since_average:
            moments = [
                self._optimizer.state[weight][name]
                for weight in self._weights
                for name in ("exp_avg", "exp_avg_sq")
                if name in self._optimizer.state[weight]
            ]
            self._average([weight.data for weight in self._weights] + moments)
        self._since_average = 0

    def mean(self, loss: float) -> float:
        """Mean of a figure over the workers, which differs only where they step apart."""
        if not self._is_apart:
            return loss
        return float(self._group.all_reduce_sum(torch.tensor(loss, dtype=torch.float64))) / self._group.count

    def _average(self, tensors: Sequence[torch.Tensor]) -> None:
        joined = self._group.all_reduce_sum(torch.cat([tensor.flatten() for tensor in tensors])) / self._group.count
        for tensor, mean in zip(tensors, joined.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(mean.view_as(tensor))

    def _exchange(self, is_last: bool) -> AbstractContextManager[None]:
        return nullcontext() if is_last or self._is_apart else self._group.apart(self._objective)

    def _precision(self) -> AbstractContextManager[Any]:
        if self._settings.precision == "float32":
            return nullcontext()
        return torch.autocast(self._weights[0].device.type, torch.bfloat16)


def record_first_steps(progress: Progress, model: str, step: int, loss: float) -> None:
    """Records the loss of one of the first steps; kept in no manifest."""
    if step <= FIRST_STEPS:
        progress.record(f"first steps of {model}", step, loss)

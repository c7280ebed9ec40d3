"""The state of a training loop between two epochs, to a checkpoint and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from core.progress import Progress
from training.checkpoints import (
    Checkpoint,
    Checkpoints,
    generator_states,
    optimizer_tensors,
    restore_generators,
    restore_optimizer,
)
from training.distributed.group import ALONE, Group

NETWORK, RANDOM = "network.", "random."


@dataclass(frozen=True)
class TrainingState:
    """Everything that decides how a training run goes on.

    Attributes:
        network: Its weights.
        optimizer: Adam's moments.
        schedule: Of its rates.
        generators: By name.
        curve: The name under which the loss is recorded.
    """

    network: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    generators: Mapping[str, np.random.Generator | torch.Generator]
    curve: str

    def save(self, checkpoints: Checkpoints, epoch: int, loss: float) -> None:
        """Keeps the state after ``epoch``."""
        tensors = {f"{NETWORK}{name}": value for name, value in self.network.state_dict().items()}
        tensors |= optimizer_tensors(self.optimizer)
        tensors |= {f"{RANDOM}{name}": generator.get_state() for name, generator in self._of_torch().items()}
        facts = {
            "generators": generator_states(self._of_numpy()),
            "steps": self.schedule.last_epoch,
            "rates": [group["lr"] for group in self.optimizer.param_groups],
            "loss": loss,
        }
        checkpoints.save(Checkpoint(epoch, tensors, facts))

    def restore(self, checkpoints: Checkpoints, progress: Progress, group: Group = ALONE) -> int:
        """Sets the newest whole checkpoint's state; gives back the epoch to do next, 1 without any.

        Among several workers all take what the first one finds.
        """
        found = group.agree(checkpoints.newest)
        if found is None:
            return 1
        weights = {name.removeprefix(NETWORK): v for name, v in found.tensors.items() if name.startswith(NETWORK)}
        self.network.load_state_dict(weights)
        restore_optimizer(self.optimizer, found.tensors)
        restore_generators(self._of_numpy(), found.facts["generators"])
        for name, generator in self._of_torch().items():
            generator.set_state(found.tensors[f"{RANDOM}{name}"])
        self.schedule.last_epoch = found.facts["steps"]
        for of_rate, rate in zip(self.optimizer.param_groups, found.facts["rates"], strict=True):
            of_rate["lr"] = rate
        progress.record(self.curve, found.step, found.facts["loss"])
        return found.step + 1

    def _of_numpy(self) -> dict[str, np.random.Generator]:
        return {name: one for name, one in self.generators.items() if isinstance(one, np.random.Generator)}

    def _of_torch(self) -> dict[str, torch.Generator]:
        return {name: one for name, one in self.generators.items() if isinstance(one, torch.Generator)}

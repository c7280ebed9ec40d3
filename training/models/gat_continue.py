"""The graph attention network goes on: from a checkpoint of the same run, or from an earlier network."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from core.progress import Progress
from training.checkpoints import (
    Checkpoint,
    Checkpoints,
    generator_states,
    optimizer_tensors,
    restore_generators,
    restore_optimizer,
)
from training.continuation import aligned
from training.distributed.group import ALONE, Group
from training.models.gat_network import GatNetwork

NETWORK = "network."


@dataclass(frozen=True)
class TrainingState:
    """Everything that decides how a training run goes on.

    Attributes:
        network: Its weights.
        optimizer: Adam's moments.
        generators: By name.
    """

    network: GatNetwork
    optimizer: torch.optim.Optimizer
    generators: dict[str, np.random.Generator]

    def save(
        self, checkpoints: Checkpoints, schedule: torch.optim.lr_scheduler.LRScheduler, epoch: int, loss: float
    ) -> None:
        """Keeps the state after ``epoch``."""
        tensors = {f"{NETWORK}{name}": value for name, value in self.network.state_dict().items()}
        tensors |= optimizer_tensors(self.optimizer)
        facts = {
            "generators": generator_states(self.generators),
            "steps": schedule.last_epoch,
            "rates": [group["lr"] for group in self.optimizer.param_groups],
            "loss": loss,
        }
        checkpoints.save(Checkpoint(epoch, tensors, facts))

    def restore(
        self,
        checkpoints: Checkpoints,
        schedule: torch.optim.lr_scheduler.LRScheduler,
        progress: Progress,
        group: Group = ALONE,
    ) -> int:
        """Sets the newest whole checkpoint's state; gives back the epoch to do next, 1 without any."""
        found = group.agree(checkpoints.newest)
        if found is None:
            return 1
        weights = {name.removeprefix(NETWORK): v for name, v in found.tensors.items() if name.startswith(NETWORK)}
        self.network.load_state_dict(weights)
        restore_optimizer(self.optimizer, found.tensors)
        restore_generators(self.generators, found.facts["generators"])
        schedule.last_epoch = found.facts["steps"]
        for of_rate, rate in zip(self.optimizer.param_groups, found.facts["rates"], strict=True):
            of_rate["lr"] = rate
        progress.record("gat loss", found.step, found.facts["loss"])
        return found.step + 1


def go_on_from(network: GatNetwork, start: dict[str, torch.Tensor], old_rows: np.ndarray) -> None:
    """Gives a fresh network an earlier one's weights, in place; left as it is where their widths differ.

    The fresh tables are singular vectors of the new data in a basis of their own. They are rotated onto the earlier
    ones over the items that both know, head by head, so that new items start beside their neighbours.

    Args:
        network: Before training.
        start: ``state_dict`` of the earlier network.
        old_rows: int64 ``(I,)``, its row of each item; -1 for new items.
    """
    known = np.flatnonzero(old_rows >= 0)
    rows = torch.from_numpy(old_rows[known])
    if start["history_table"].shape[1] != network.history_table.shape[1] or len(known) == 0:
        return
    width = network.history_table.shape[1] // network.heads
    with torch.no_grad():
        for head in range(network.heads):
            part = slice(head * width, (head + 1) * width)
            tables = (("history_table", "history_start"), ("target_table", "target_start"))
            fresh = np.concatenate([getattr(network, name)[known, part].numpy() for name, _ in tables])
            before = np.concatenate([start[name][rows][:, part].numpy() for name, _ in tables])
            rotation = torch.from_numpy(aligned(fresh, before).astype(np.float32))
            for name, origin in tables:
                for table in (getattr(network, name), getattr(network, origin)):
                    table[:, part] = table[:, part] @ rotation
        for name in ("history_table", "target_table", "item_bias"):
            getattr(network, name)[known] = start[name][rows]
        network.scalars.item[known] = start["scalars.item"][rows]
        own = network.state_dict()
        for name, value in start.items():
            is_shared = name == "length_scale" or (name.startswith("scalars.") and name != "scalars.item")
            if is_shared and own[name].shape == value.shape:
                own[name].copy_(value)

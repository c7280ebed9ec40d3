"""The graph attention network goes on from an earlier one."""

from __future__ import annotations

import numpy as np
import torch

from training.continuation import aligned
from training.models.gat_network import GatNetwork


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

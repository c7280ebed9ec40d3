"""Dropout of a batch that workers share: the same units are left out as where one process has the whole batch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn


class BatchMasks:
    """Masks drawn for whole batches, of which each part takes its rows."""

    def __init__(self) -> None:
        self._size = 0
        self._places = torch.zeros(0, dtype=torch.int64)
        self._before = torch.zeros(0, dtype=torch.uint8)

    def point_at(self, size: int, places: np.ndarray, part: int) -> None:
        """To be called before each pass through the network.

        Args:
            size: Examples of the whole batch.
            places: int64, which of them come next.
            part: Number from 0 of this part of the batch.
        """
        self._size, self._places = size, torch.from_numpy(places)
        if part == 0:
            self._before = torch.get_rng_state()
        else:
            torch.set_rng_state(self._before)  # all parts see the masks of one draw

    def draw(self, x: torch.Tensor, kept: float) -> torch.Tensor:
        """Bool like ``x``: True with probability ``kept``."""
        whole = torch.empty(self._size, *x.shape[1:], dtype=torch.bool, device=x.device).bernoulli_(kept)
        return whole[self._places.to(x.device)]


class _Dropout(nn.Module):
    def __init__(self, share: float, masks: BatchMasks) -> None:
        super().__init__()
        self._kept = 1 - share
        self._masks = masks

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self._masks.draw(x, self._kept) / self._kept if self.training else x


@contextmanager
def over_whole_batches(network: nn.Module, masks: BatchMasks) -> Iterator[None]:
    """Lets every ``nn.Dropout`` of ``network`` take its masks from ``masks`` inside the block."""
    replaced = [
        (parent, name, layer)
        for parent in network.modules()
        for name, layer in parent.named_children()
        if isinstance(layer, nn.Dropout)
    ]
    for parent, name, layer in replaced:
        setattr(parent, name, _Dropout(layer.p, masks))
    try:
        yield
    finally:
        for parent, name, layer in replaced:
            setattr(parent, name, layer)

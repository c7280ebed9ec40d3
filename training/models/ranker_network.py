"""DCN-v2 (Wang et al. 2021, arXiv 2008.13535): cross layers beside a deep network, joined by one output."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class CrossNetwork(nn.Module):
    """``x_{l+1} = x_0 * (W_l x_l + b_l) + x_l``.

    Args:
        width: Features.
        layers: Cross layers; the output has interactions up to degree ``layers + 1``.
    """

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        linear = [nn.Linear(width, width) for _ in range(layers)]
        for layer in linear:
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)
        self.layers = nn.ModuleList(linear)

    def forward(self, features: Tensor) -> Tensor:
        crossed = features
        for layer in self.layers:
            crossed = features * layer(crossed) + crossed
        return crossed


class RankingNetwork(nn.Module):
    """Features ``(..., F)`` to one score each; exactly 0 before training.

    Args:
        width: F.
        cross_layers: See :class:`CrossNetwork`.
        hidden: Widths of the deep layers.
        dropout: Dropout after each deep layer.
    """

    def __init__(self, width: int, cross_layers: int, hidden: tuple[int, ...], dropout: float) -> None:
        super().__init__()
        self.cross = CrossNetwork(width, cross_layers)
        layers: list[nn.Module] = []
        before = width
        for size in hidden:
            layers += [nn.Linear(before, size), nn.ReLU(), nn.Dropout(dropout)]
            before = size
        self.deep = nn.Sequential(*layers)
        self.output = nn.Linear(width + before, 1, bias=False)
        nn.init.zeros_(self.output.weight)

    def forward(self, features: Tensor) -> Tensor:
        joined = torch.cat([self.cross(features), self.deep(features)], -1)
        score: Tensor = self.output(joined).squeeze(-1)
        return score

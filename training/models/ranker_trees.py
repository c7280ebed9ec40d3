"""Boosted trees as tensor operations: a compare per node and a choice per level, no tree operator of ai.onnx.ml."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

ALWAYS_LEFT = 3.0e38
"""Threshold of the nodes that fill a tree up to its full depth."""


@dataclass(frozen=True)
class CompleteTrees:
    """T trees of one depth d; node n has the children 2n + 1 (at most the threshold) and 2n + 2.

    Attributes:
        features: int64 ``(T, 2^d - 1)``, the column that a node looks at.
        thresholds: float32 ``(T, 2^d - 1)``.
        leaves: float32 ``(T, 2^d)``, left to right.
    """

    features: np.ndarray
    thresholds: np.ndarray
    leaves: np.ndarray

    @classmethod
    def from_dump(cls, dump: dict[str, Any], depth: int) -> CompleteTrees:
        """Reads ``lightgbm.Booster.dump_model()``; leaves above the full depth are repeated below themselves.

        Args:
            dump: Of a model with numerical features and ``use_missing=false``.
            depth: At least that of the deepest tree.
        """
        trees = [_flatten(tree["tree_structure"], depth) for tree in dump["tree_info"]]
        features, thresholds, leaves = (np.stack(column) for column in zip(*trees, strict=True))
        return cls(features, thresholds, leaves)


class TreeSum(nn.Module):
    """Sum of T complete trees of depth d over features ``(..., F)``, ``(...)``.

    All nodes compare at once; then each level chooses between its neighbours, from the leaves up to the root.

    Args:
        trees: T.
        depth: d.
    """

    features: Tensor
    thresholds: Tensor
    leaves: Tensor

    def __init__(self, trees: int, depth: int) -> None:
        super().__init__()
        self.depth = depth
        self.register_buffer("features", torch.zeros(trees, 2**depth - 1, dtype=torch.int64))
        self.register_buffer("thresholds", torch.full((trees, 2**depth - 1), ALWAYS_LEFT))
        self.register_buffer("leaves", torch.zeros(trees, 2**depth))

    def load(self, trees: CompleteTrees) -> None:
        """Takes the trees over; fewer than T are followed by trees of zeros."""
        count = len(trees.leaves)
        self.features[:count] = torch.from_numpy(trees.features)
        self.thresholds[:count] = torch.from_numpy(trees.thresholds)
        self.leaves[:count] = torch.from_numpy(trees.leaves)

    def forward(self, features: Tensor) -> Tensor:
        values = self.leaves  # (T, 2^d), then (..., T, 2^level)
        for level in reversed(range(self.depth)):
            nodes = slice(2**level - 1, 2 ** (level + 1) - 1)
            columns = self.features[:, nodes]
            looked_at = features[..., columns.flatten()].unflatten(-1, columns.shape)  # (..., T, 2^level)
            values = torch.where(looked_at <= self.thresholds[:, nodes], values[..., 0::2], values[..., 1::2])
        return values.squeeze(-1).sum(-1)


def _flatten(root: dict[str, Any], depth: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    features = np.zeros(2**depth - 1, dtype=np.int64)
    thresholds = np.full(2**depth - 1, ALWAYS_LEFT, dtype=np.float32)
    leaves = np.zeros(2**depth, dtype=np.float32)
    waiting = [(root, 0, 0)]  # node, its place in breadth-first order, its level
    while waiting:
        node, place, level = waiting.pop()
        if "leaf_value" in node:
            width = 2 ** (depth - level)
            first = (place - (2**level - 1)) * width
            leaves[first : first + width] = node["leaf_value"]
            continue
        features[place] = node["split_feature"]
        thresholds[place] = _float32_at_most(node["threshold"])
        waiting.append((node["left_child"], 2 * place + 1, level + 1))
        waiting.append((node["right_child"], 2 * place + 2, level + 1))
    return features, thresholds, leaves


def _float32_at_most(value: float) -> np.float32:
    """The largest float32 that is not above ``value``: float32 features fall on the same side of both."""
    near = np.float32(value)
    return near if float(near) <= value else np.nextafter(near, np.float32(-np.inf))

"""Attributes of users and items as integer codes, the same in training and in serving."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

UNKNOWN = 0
"""Code of a missing or unseen value, in every column."""


@dataclass(frozen=True)
class FeatureColumn:
    """One attribute.

    Attributes:
        name: Column name in the source table.
        kind: ``category`` (one code), ``tags`` (several codes, for example genres), ``number`` (bucket code).
        cardinality: Number of codes, ``UNKNOWN`` included.
        width: Slots in the code matrix: 1, or the most tags that one row has.
    """

    name: str
    kind: str
    cardinality: int
    width: int


@dataclass(frozen=True)
class FeatureTable:
    """Codes of all rows for all attributes.

    Attributes:
        columns: The attributes, in slot order.
        codes: int32 ``(N, F)`` with ``F`` the sum of widths; ``UNKNOWN`` where there is nothing. F may be 0.
    """

    columns: tuple[FeatureColumn, ...]
    codes: np.ndarray

    @property
    def width(self) -> int:
        """F."""
        return int(self.codes.shape[1])

    def save(self, path: Path) -> None:
        """Writes one npz without object arrays."""
        np.savez_compressed(
            path,
            codes=self.codes,
            names=np.array([column.name for column in self.columns], dtype=np.str_),
            kinds=np.array([column.kind for column in self.columns], dtype=np.str_),
            cardinalities=np.array([column.cardinality for column in self.columns], dtype=np.int64),
            widths=np.array([column.width for column in self.columns], dtype=np.int64),
        )

    @classmethod
    def load(cls, path: Path) -> FeatureTable:
        """Reads what ``save`` wrote."""
        with np.load(path, allow_pickle=False) as data:
            columns = tuple(
                FeatureColumn(str(name), str(kind), int(cardinality), int(width))
                for name, kind, cardinality, width in zip(
                    data["names"], data["kinds"], data["cardinalities"], data["widths"], strict=True
                )
            )
            return cls(columns, data["codes"])

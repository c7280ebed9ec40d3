"""Which value has which attribute code, for catalogues and requests that come later."""

from __future__ import annotations

import json
import math
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

import numpy as np

from core.features import UNKNOWN, FeatureColumn

TAG_MARK = "|"
"""Separates the tags in one cell."""


@dataclass(frozen=True)
class ColumnCodes:
    """The codes of one attribute.

    Attributes:
        column: The attribute.
        values: Text of code 1, 2, …: categories and tags. Empty for numbers.
        edges: Upper ends of all buckets but the last, ascending; code 1 is the first bucket. Empty for the others.
    """

    column: FeatureColumn
    values: tuple[str, ...] = ()
    edges: tuple[float, ...] = ()
    _codes: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_codes", {value: code for code, value in enumerate(self.values, start=1)})

    def encode(self, text: str) -> list[int]:
        """Codes of a cell as text, as many as the column is wide; ``UNKNOWN`` where the value has none.

        Tags stand between ``|``; the most frequent ones are kept where there are more than slots.
        """
        if self.column.kind == "number":
            number = as_number(text)
            codes = [UNKNOWN if number is None else 1 + bisect_right(self.edges, number)]
        else:
            cells = text.split(TAG_MARK) if self.column.kind == "tags" else [text]
            found = {self._codes.get(cell.strip() if self.column.kind == "tags" else cell, UNKNOWN) for cell in cells}
            codes = sorted(found - {UNKNOWN})[: self.column.width]
        return codes + [UNKNOWN] * (self.column.width - len(codes))


@dataclass(frozen=True)
class Codebook:
    """All attributes of users or of items, in the order of their feature table."""

    columns: tuple[ColumnCodes, ...] = ()

    @cached_property
    def starts(self) -> dict[str, int]:
        """First slot of each attribute."""
        widths = [entry.column.width for entry in self.columns]
        return {entry.column.name: sum(widths[:place]) for place, entry in enumerate(self.columns)}

    def overlay(self, codes: np.ndarray, attributes: Iterable[str]) -> np.ndarray:
        """Codes of one user or item with some attributes given anew.

        Args:
            codes: int ``(F,)``, what is known; F may be larger where the table has no column and one empty slot.
            attributes: ``name=value`` each. Unknown names, unknown values and what has no ``=`` change nothing or
                become ``UNKNOWN``: a request must not fail since a catalogue has grown.

        Returns:
            int ``(F,)``, a copy.
        """
        result = codes.copy()
        by_name = {entry.column.name: entry for entry in self.columns}
        for text in attributes:
            name, mark, value = text.partition("=")
            entry = by_name.get(name)
            if mark and entry is not None:
                start = self.starts[name]
                result[start : start + entry.column.width] = entry.encode(value)
        return result

    def save(self, path: Path) -> None:
        """Writes one JSON file."""
        entries = [
            {"column": asdict(entry.column), "values": entry.values, "edges": entry.edges} for entry in self.columns
        ]
        path.write_text(json.dumps(entries, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Codebook:
        """Reads what ``save`` wrote."""
        return cls(
            tuple(
                ColumnCodes(FeatureColumn(**entry["column"]), tuple(entry["values"]), tuple(entry["edges"]))
                for entry in json.loads(path.read_text(encoding="utf-8"))
            )
        )


NO_CODES = Codebook()
"""No attributes at all."""


def as_number(text: str) -> float | None:
    """A finite number, or a date as seconds since the epoch (UTC where it names no offset); None for other text."""
    try:
        number = float(text)
    except ValueError:
        try:
            moment = datetime.fromisoformat(text.strip())
        except ValueError:
            return None
        number = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    return number if math.isfinite(number) else None

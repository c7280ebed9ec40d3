"""What the page is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """A table of texts.

    Attributes:
        header: Column titles.
        rows: Cells, as many per row as there are titles.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Part:
    """One part of the page.

    Attributes:
        title: Its heading.
        text: What the reader sees here, a sentence or two.
        figures: SVG texts.
        tables: Below the figures.
    """

    title: str
    text: str
    figures: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()

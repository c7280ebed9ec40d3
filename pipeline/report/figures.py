"""Plots as inline SVG: no file beside the page, no script, the same bytes for the same numbers."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

WIDTH_INCHES, HEIGHT_INCHES = 7.0, 3.2
COLOURS = ("#0b6e99", "#d9730d", "#0f7b6c", "#ad1a72", "#6940a5", "#64473a", "#9b9a97", "#dfab01")
STYLE: Any = {"svg.hashsalt": "conch", "svg.fonttype": "none", "font.size": 9, "axes.spines.top": False,
         "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25, "axes.axisbelow": True}  # fmt: skip


@dataclass(frozen=True)
class Bars:
    """One series of a bar chart.

    Attributes:
        name: Legend.
        heights: One per group; NaN leaves a gap.
        errors: Standard errors, same length, or empty.
    """

    name: str
    heights: Sequence[float]
    errors: Sequence[float] = ()


def bar_chart(groups: Sequence[str], series: Sequence[Bars], label: str) -> str:
    """Grouped bars with whiskers of one standard error."""
    figure, axes = _figure()
    width = 0.8 / max(len(series), 1)
    places = np.arange(len(groups))
    for at, bars in enumerate(series):
        shift = (at - (len(series) - 1) / 2) * width
        errors = list(bars.errors) or None
        axes.bar(places + shift, bars.heights, width * 0.95, yerr=errors, label=bars.name,
                 color=COLOURS[at % len(COLOURS)], error_kw={"lw": 0.8, "alpha": 0.7})  # fmt: skip
    axes.set_xticks(places, groups)
    axes.set_ylabel(label)
    axes.grid(axis="x", visible=False)
    return _svg(figure, axes, legend=len(series) > 1)


def line_chart(
    lines: Mapping[str, Sequence[tuple[float, float]]], x_label: str, y_label: str, *, diagonal: bool = False
) -> str:
    """One line per name through its points (x, y).

    Args:
        lines: Points by name.
        x_label: Horizontal axis.
        y_label: Vertical axis.
        diagonal: Draw y = x, what perfect calibration or prediction would be.
    """
    figure, axes = _figure()
    for at, (name, points) in enumerate(lines.items()):
        x, y = zip(*points, strict=True) if points else ((), ())
        axes.plot(x, y, marker="o", ms=3, lw=1.4, label=name, color=COLOURS[at % len(COLOURS)])
    if diagonal:
        low, high = axes.get_xlim()
        axes.plot([low, high], [low, high], ls="--", lw=0.8, color="#9b9a97")
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    return _svg(figure, axes, legend=len(lines) > 1)


def _figure() -> tuple[Figure, Axes]:
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_INCHES, HEIGHT_INCHES), layout="constrained")
        return figure, figure.add_subplot()


def _svg(figure: Figure, axes: Axes, *, legend: bool) -> str:
    if legend:
        axes.legend(fontsize=8, frameon=False)
    stream = io.StringIO()
    with mpl.rc_context(STYLE):
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    return text[text.index("<svg") :]

"""Plots of the rating report as files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

SIZE_INCHES = (5.2, 4.2)


def draw_ratings(report: dict[str, Any], folder: Path) -> list[Path]:
    """Draws the plots of a rating report (see :mod:`pipeline.ratings`).

    Writes ``predicted_actual.svg`` and ``calibration.svg``; the same report gives the same bytes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    with mpl.rc_context({"svg.hashsalt": "conch", "svg.fonttype": "none", "font.size": 9}):
        for name, draw in (("predicted_actual", _predicted_actual), ("calibration", _calibration)):
            figure = Figure(figsize=SIZE_INCHES, layout="constrained")
            draw(figure.subplots(), report)
            made.append(folder / f"{name}.svg")
            figure.savefig(made[-1], metadata={"Date": None})
    return made


def _predicted_actual(axes: Any, report: dict[str, Any]) -> None:
    curve = report["predicted_actual"]
    ends = [min(curve["actual"]), max(curve["actual"])]
    axes.plot(ends, ends, color="0.7", linestyle="--", linewidth=1, label="perfect")
    axes.fill_between(curve["actual"], curve["p10"], curve["p90"], color="C0", alpha=0.15, label="10 % to 90 %")
    axes.fill_between(curve["actual"], curve["p25"], curve["p75"], color="C0", alpha=0.3, label="25 % to 75 %")
    axes.plot(curve["actual"], curve["mean"], color="C0", marker="o", markersize=4, label="mean")
    axes.set(xlabel="actual", ylabel="predicted", title=f"Predicted against actual, {report['split']}")
    axes.legend(frameon=False)


def _calibration(axes: Any, report: dict[str, Any]) -> None:
    curve = report["calibration"]
    axes.plot([0, 1], [0, 1], color="0.7", linestyle="--", linewidth=1, label="perfect")
    axes.plot(curve["predicted"], curve["actual"], color="C0", marker="o", markersize=4, label="model")
    shares = [count / max(curve["counts"]) for count in curve["counts"]]
    axes.bar(curve["predicted"], [share / 4 for share in shares], width=0.02, color="0.85", label="pairs")
    ece = report["models"]["rating"]["all"]["ece"]
    axes.set(xlabel="probability of being liked", ylabel="share liked", title=f"Calibration, ECE {ece:.3f}")
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.legend(frameon=False, loc="upper left")

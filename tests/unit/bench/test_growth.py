"""The arithmetic of the growth bench."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench.growth import STAGES, Size, Stage, growth_of, plot, rows_of, shape_of


def size(events: int, seconds: float) -> Size:
    """A start of two seconds for each stage, then ``seconds`` per million events; half of it is CPU time."""
    whole = 2 + seconds * (events - 100_000) / 1e6
    stages = {name: Stage(whole, whole / 2, 100.0, 0.0) for name in STAGES}
    return Size(events, 1, 1, stages, {}, 0.0, 0.0)


@pytest.fixture
def starts() -> list[Size]:
    return [size(100_000, 0.0)] * 3


def test_seconds_beyond_the_start_are_what_events_cost(starts: list[Size]) -> None:
    (row,) = rows_of(starts, [size(10_000_000, 0.7)])
    assert row["seconds"]["dataset"] == pytest.approx(0.7)
    assert row["cpu_seconds"]["mf"] == pytest.approx(0.35)
    assert row["seconds"]["per_million_beyond_start"] == pytest.approx(1.4)
    assert row["seconds"]["per_million"] == pytest.approx((4 + 2 * 0.7 * 9.9) / 10)


def test_growth_is_the_worst_size_over_the_mean_of_the_small_ones(starts: list[Size]) -> None:
    rows = rows_of(starts, [size(1_000_000, 0.8), size(100_000_000, 1.2), size(1_000_000, 1.2)])
    assert growth_of(rows)["seconds"]["per_million_beyond_start"] == pytest.approx(1.2)
    assert growth_of(rows[1:2]) == {}


def test_shape_does_not_depend_on_the_mean() -> None:
    counts = np.round(1e6 / np.arange(1, 2_001) ** 0.8)
    one, ten = shape_of(counts), shape_of(10 * counts)
    assert one["slope"] == pytest.approx(-0.8, abs=0.01)
    assert (one["gini"], one["quantiles"]) == (ten["gini"], ten["quantiles"])
    assert shape_of(np.full(100, 7.0))["gini"] == pytest.approx(0)


def test_plot_is_the_same_file_for_the_same_figures(starts: list[Size], tmp_path: Path) -> None:
    result = {"rows": rows_of(starts, [size(1_000_000, 0.8), size(3_000_000, 0.9)])}
    for name in ("one.svg", "two.svg"):
        plot(result, tmp_path / name)
    drawn = (tmp_path / "one.svg").read_text(encoding="utf-8")
    assert "<svg" in drawn
    assert drawn == (tmp_path / "two.svg").read_text(encoding="utf-8")

from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import pytest

from pipeline.report.calibration import calibrate_probabilities, reliability
from pipeline.report.figures import Bars, bar_chart, line_chart


def test_charts_are_valid_svg_and_repeat_exactly() -> None:
    bars = [Bars("one", [0.1, float("nan")], [0.01, 0.02]), Bars("two", [0.3, 0.2])]
    for draw in (
        lambda: bar_chart(["a", "b <c>"], bars, "NDCG"),
        lambda: line_chart({"x": [(1, 2.0), (2, 3.0)], "none": []}, "epoch", "loss", diagonal=True),
    ):
        assert ElementTree.fromstring(draw()).tag.endswith("svg")
        assert draw() == draw()


def test_probabilities_follow_the_truth() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=40_000)
    truth = 1 / (1 + np.exp(-(1.5 * scores - 2)))
    labels = rng.random(len(scores)) < truth
    found = calibrate_probabilities(scores, labels, rng.integers(0, 500, len(scores)))
    assert np.abs(found - truth).mean() < 0.01
    assert reliability(found, labels).expected_calibration_error < 0.01


def test_probabilities_come_from_the_other_half_of_the_users() -> None:
    scores, users = np.tile([0.0, 1.0], 200), np.repeat([0, 1], 200)
    labels = np.where(users == 0, scores > 0.5, scores < 0.5)
    found = calibrate_probabilities(scores, labels, users)
    assert found[(users == 0) & (scores > 0.5)].max() < 0.5  # half 1 teaches the opposite


def test_probabilities_are_unknown_when_one_half_has_no_user() -> None:
    assert np.isnan(calibrate_probabilities(np.zeros(3), np.array([True, False, True]), np.zeros(3, int))).all()


def test_reliability_of_a_constant_forecast_is_its_bias() -> None:
    labels = np.arange(1000) % 4 == 0
    found = reliability(np.full(1000, 0.5), labels)
    assert found.expected_calibration_error == pytest.approx(0.25, abs=0.01)
    assert found.counts.sum() == 1000

"""The comparison of several workers with one process: what it computes from two runs."""

from __future__ import annotations

import numpy as np
import pytest

from bench.distributed import Run, compared, largest_gap


def run(workers: int, shift: float) -> Run:
    return Run(
        workers,
        "every_step",
        {"mf": [1.0, 0.5 + shift]},
        {"mf": np.array([0.1, 0.2, 0.3]) + shift},
        {"mf": 2.0 / workers},
    )


def test_largest_gap_is_infinite_when_a_run_did_fewer_steps() -> None:
    assert largest_gap([1.0, 2.0], [1.5, 2.1]) == 0.5
    assert largest_gap([1.0], [1.0, 2.0]) == float("inf")


def test_runs_are_compared_user_by_user() -> None:
    row = compared(run(2, 0.01), run(1, 0.0))["models"]["mf"]
    assert row["largest_loss_difference"] == pytest.approx(0.01)
    assert (row["ndcg@10"], row["difference"], row["difference_se"]) == (0.21, 0.01, 0.0)
    assert row["seconds"] == 1.0

"""Verdicts on serving speed, and the closed loop that feeds them."""

from __future__ import annotations

import time

import pytest

from bench.serving_load import Cell, measure
from bench.serving_verdicts import BARE, BATCH, FASTAPI, INLINE, ONE, SIXTEEN, TORCH, TRITON, verdicts
from core.errors import ServerError


def cells(rate: float, ms: float) -> dict[str, list[Cell]]:
    return {kind: [Cell(rate, ms, 2 * ms, 3 * ms)] * 3 for kind in (ONE, SIXTEEN, BATCH)}


def test_verdicts_are_kept_when_ours_is_fast_and_missed_when_slow() -> None:
    peers = {BARE: cells(900, 1.0), FASTAPI: cells(500, 3.0), INLINE: cells(600, 2.5), TORCH: cells(100, 9.0)}
    fast = verdicts({**peers, TRITON: cells(1_000, 1.5)})
    assert all(one.kept for one in fast)
    assert fast[2].found == pytest.approx(1_000 / 600, abs=1e-3)  # held against the better of the two
    assert not any(one.kept for one in verdicts({**peers, TRITON: cells(300, 4.0)}))


def test_verdict_is_not_certain_when_rounds_disagree() -> None:
    peers = {BARE: cells(900, 1.0), FASTAPI: cells(500, 3.0), INLINE: cells(600, 2.5), TORCH: cells(100, 9.0)}
    ours = cells(1_000, 1.5)
    assert all(one.certain for one in verdicts({**peers, TRITON: ours}))
    ours[SIXTEEN] = [*ours[SIXTEEN][:2], Cell(610, 1.5, 3.0, 4.5)]
    unsure = [one.promise for one in verdicts({**peers, TRITON: ours}) if not one.certain]
    assert unsure == ["users/s at 16 at once over FastAPI's"]


def test_measure_counts_users_and_milliseconds() -> None:
    def ask(place: int) -> float:
        time.sleep(0.005)
        return 0.005

    cell = measure([ask, ask], batch=4, seconds=0.3, warm_seconds=0.05)
    assert 800 < cell.users_per_second <= 1_620
    assert cell.p50_ms == cell.p99_ms == 5.0


def test_measure_refuses_a_turn_when_a_request_fails() -> None:
    def ask(place: int) -> float:
        raise ServerError("gone")

    with pytest.raises(ServerError, match="failed under load"):
        measure([ask], 1, 0.1, 0.0)

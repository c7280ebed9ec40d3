"""When the loop runs by itself, when it does not, and that two never run at once."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.errors import GateError
from core.sections import ScheduleSettings
from pipeline.loop.lease import Lease
from pipeline.loop.triggers import Drift, Signals, decide, drift_between, has_drifted, largest_drift

SETTINGS = ScheduleSettings()
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
RECENT, LONG_AGO = NOW - timedelta(hours=1), NOW - timedelta(days=2)
SHOWN: dict[str, Any] = {"shown": 5000, "first_click_rate": 0.08, "first_shown": 5000}
CALM, WILD, BETWEEN = Drift(0.01, 0.001), Drift(0.5, 0.05), Drift(0.15, 0.06)


@pytest.mark.parametrize(
    ("signals", "run", "trigger"),
    [
        (Signals(NOW, RECENT), False, None),
        (Signals(NOW, RECENT, is_asked=True), True, "manual"),
        (Signals(NOW, LONG_AGO, new_labels=500), True, "time"),
        (Signals(NOW, LONG_AGO, new_labels=5), False, "time"),
        (Signals(NOW, RECENT, new_labels=20_000), True, "volume"),
        (Signals(NOW, NOW - timedelta(minutes=1), new_labels=20_000), False, "volume"),
        (Signals(NOW, RECENT, runs_today=24, is_asked=True), False, "manual"),
        (Signals(NOW, RECENT, new_labels=500, drifts=(WILD,) * 3), True, "drift"),
        (Signals(NOW, RECENT, new_labels=500, click_rate=0.05, **SHOWN), True, "decay"),
        (Signals(NOW, RECENT, new_labels=500, click_rate=0.079, **SHOWN), False, None),
    ],
)  # fmt: skip
def test_decision_has_its_trigger_and_reason(signals: Signals, run: bool, trigger: str | None) -> None:
    answer = decide(signals, SETTINGS)
    assert (answer.run, answer.trigger) == (run, trigger)
    assert answer.reason


@pytest.mark.parametrize(
    ("drifts", "fires"),
    [
        ([WILD, WILD], False),
        ([WILD, WILD, WILD], True),
        ([WILD, WILD, CALM, WILD], False),
        ([WILD] * 4, False),  # fired at the third
        ([WILD, WILD, WILD, BETWEEN, WILD, WILD, WILD], False),  # not armed again
        ([WILD, WILD, WILD, CALM, WILD, WILD, WILD], True),
    ],
)
def test_drift_needs_consecutive_windows_and_fires_once(drifts: list[Drift], fires: bool) -> None:
    assert has_drifted(drifts, SETTINGS) is fires


def test_drift_measures_separate_noise_from_change() -> None:
    rng = np.random.default_rng(0)
    shares = rng.dirichlet(np.ones(10))
    same = drift_between(rng.multinomial(5000, shares), rng.multinomial(5000, shares))
    other = drift_between(rng.multinomial(5000, shares), rng.multinomial(5000, shares[::-1]))
    assert same.psi < 0.05 < 0.2 < other.psi
    assert same.jensen_shannon < 0.02 < 0.1 < other.jensen_shannon
    assert largest_drift({"a": shares, "b": shares}, {"a": shares, "b": shares[::-1]}).psi > 0.2


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_only_one_of_many_gets_the_lease(tmp_path: Path) -> None:
    got: list[int | None] = []

    def fire(at: int) -> None:
        got.append(Lease(tmp_path / "lease.sqlite", "run", f"holder {at}", 60).take())

    threads = [threading.Thread(target=fire, args=(at,)) for at in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [epoch for epoch in got if epoch is not None] == [1]


def test_expired_lease_is_taken_over_and_the_old_holder_is_fenced(tmp_path: Path) -> None:
    clock = Clock()
    first, second = (Lease(tmp_path / "lease.sqlite", "run", name, 60, clock) for name in ("a", "b"))
    assert first.take() == 1
    clock.now = 50
    first.renew(1)
    clock.now = 100
    assert second.take() is None
    clock.now = 111
    assert second.take() == 2
    with pytest.raises(GateError, match="taken over"):
        first.renew(1)
    first.release(1)
    assert Lease(tmp_path / "lease.sqlite", "run", "c", 60, clock).take() is None
    second.release(2)
    assert Lease(tmp_path / "lease.sqlite", "run", "c", 60, clock).take() == 3

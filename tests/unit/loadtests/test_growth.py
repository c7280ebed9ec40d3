"""Slopes of servers' memory, descriptors and threads; a program that leaks is caught, a calm one is not."""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np
import pytest

from loadtests.growth import Growth, Reading, Watch, growth_of
from loadtests.judge import judge_faults, judge_growth
from loadtests.scenario import Scenario, load_scenario

CALM = "import time; print('up', flush=True); time.sleep(60)"
LEAKY = """
import time
print('up', flush=True)
kept = []
while True:
    kept.append((bytearray(b'x' * 262144), open('/dev/null')))
    time.sleep(0.02)
"""


def watched(program: str) -> Growth:
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    try:
        with Watch([process.pid], 0.05) as watch:
            time.sleep(1.0)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    growth = watch.growth(0.1)
    assert growth is not None
    return growth


def test_soak_catches_a_leaking_program_and_lets_a_calm_one_pass() -> None:
    soak = load_scenario("soak")
    leaking = {one.name: one.kept for one in judge_growth(soak, watched(LEAKY))}
    assert leaking == {"memory_mb_per_minute": False, "descriptors_per_minute": False, "threads_per_minute": True}
    assert all(one.kept for one in judge_growth(soak, watched(CALM)))


def test_growth_is_the_slope_and_ignores_one_jump() -> None:
    line = [Reading(float(second), 100 + second / 60 * 3, 10, 4) for second in range(60)]
    assert growth_of(line) == Growth(pytest.approx(3.0, abs=1e-3), 0.0, 0.0)
    spike = [Reading(float(at), 100 + 50 * (at == 30), 10 + 7 * (at == 12), 4) for at in range(60)]
    assert growth_of(spike) == Growth(0.0, 0.0, 0.0)


def test_growth_is_not_kept_when_too_little_was_read() -> None:
    assert growth_of([Reading(0.0, 1, 1, 1)] * 4) is None
    verdicts = judge_growth(load_scenario("soak"), None)
    assert [one.kept for one in verdicts] == [False] * 3
    assert all(np.isinf(one.found) for one in verdicts)


def test_fault_that_could_not_be_done_misses() -> None:
    activation = load_scenario("activation")
    assert [one.kept for one in judge_faults(activation, 1)] == [False]
    assert [one.kept for one in judge_faults(activation, 0)] == [True]
    assert judge_faults(load_scenario("steady"), 0) == []


def test_recovery_counts_from_the_burst_when_there_is_no_fault() -> None:
    burst: Scenario = load_scenario("burst")
    assert burst.warm_up_seconds == burst.stages[0].seconds
    assert burst.hurt_until_seconds == burst.stages[0].seconds + burst.stages[1].seconds

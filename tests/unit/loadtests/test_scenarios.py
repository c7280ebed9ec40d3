"""Scenarios, the users that are drawn, and the judge."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from core.errors import SettingsError
from loadtests.judge import Fate, Requests, judge, summary
from loadtests.open_loop import arrivals
from loadtests.plan import Plan
from loadtests.scenario import Fault, Objectives, Scenario, Stage, known_scenarios, load_scenario
from loadtests.stages import StepTimes
from loadtests.traffic import NEWCOMER, Traffic


def scenario(**changed: object) -> Scenario:
    base = {
        "title": "t",
        "protocol": "gateway",
        "stages": (Stage(users=1, seconds=10, measured=False), Stage(users=2, seconds=10)),
        "objectives": Objectives(p99_ms=50),
    }
    return Scenario.model_validate(base | changed)


def requests(*rows: tuple[float, float, Fate]) -> Requests:
    return Requests.of(rows)


def verdicts(found: Scenario, rows: Requests) -> dict[str, bool]:
    return {one.name: one.kept for one in judge(found, rows)}


@pytest.mark.parametrize("name", known_scenarios())
def test_every_scenario_that_comes_along_is_one_and_ends(name: str) -> None:
    assert 0 < load_scenario(name).seconds <= 660


def test_unknown_scenario_names_the_known_ones() -> None:
    with pytest.raises(SettingsError, match="steady"):
        load_scenario("stedy")


def test_typo_in_a_scenario_is_told_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('title = "x"\nprotocol = "grpc"\nstages = [{ user = 1, seconds = 2 }]\n[objectives]\n')
    with pytest.raises(SettingsError, match=r"stages\.0"):
        load_scenario(str(path))


def test_triton_scenario_may_not_ask_for_clicks() -> None:
    with pytest.raises(ValueError, match="gateway"):
        scenario(protocol="grpc", click_share=0.5)


def test_stage_at_gives_the_stage_of_the_time_and_none_at_the_end() -> None:
    found = scenario()
    assert found.stage_at(0) == found.stages[0]
    assert found.stage_at(10) == found.stages[1]
    assert found.stage_at(20) is None


def test_plan_is_read_as_it_was_written(tmp_path: Path) -> None:
    plan = Plan(scenario(), "127.0.0.1:1", ("a", "b"), tmp_path, 3, 1.0, "key")
    plan.write(tmp_path / "plan.json")
    assert Plan.read(tmp_path / "plan.json") == plan


def test_traffic_draws_by_a_power_law_and_makes_up_newcomers() -> None:
    traffic = Traffic([f"u{rank}" for rank in range(100)], 1.0, 0.2, np.random.default_rng(0))
    drawn = traffic.draw(20_000)
    new = [user for user in drawn if user.startswith(NEWCOMER)]
    assert len(new) / len(drawn) == pytest.approx(0.2, abs=0.02)
    assert len(set(new)) == len(new)
    assert drawn.count("u0") / drawn.count("u9") == pytest.approx(10, rel=0.3)


def test_arrivals_are_a_poisson_process_of_the_rate() -> None:
    times = arrivals(200, 50, np.random.default_rng(0))
    gaps = np.diff(times)
    assert len(times) == pytest.approx(10_000, rel=0.05)
    assert gaps.min() >= 0
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.05)


def test_warm_up_does_not_count() -> None:
    rows = requests((1.0, 9_000.0, "answered"), (12.0, 20.0, "answered"))
    assert summary(scenario(), rows)["p99_ms"] == 20
    assert verdicts(scenario(), rows) == {"p99_ms": True, "failed_share": True, "refused_share": True}


def test_failed_requests_break_the_default_objective() -> None:
    rows = requests((12.0, 20.0, "answered"), (13.0, 20.0, "failed"))
    assert verdicts(scenario(), rows)["failed_share"] is False


def test_slow_and_degraded_answers_break_theirs() -> None:
    wanted = scenario(objectives=Objectives(p50_ms=10, most_ms=30, degraded_share=0.1, least_rps=1))
    rows = requests((12.0, 20.0, "degraded"), (13.0, 40.0, "answered"))
    assert verdicts(wanted, rows) == {
        "p50_ms": False, "most_ms": False, "degraded_share": False, "failed_share": True,
        "refused_share": True, "least_rps": False,
    }  # fmt: skip


def test_refused_requests_have_an_objective_of_their_own_and_no_part_in_the_percentiles() -> None:
    rows = requests((12.0, 20.0, "answered"), (13.0, 1.0, "refused"), (14.0, 90.0, "refused"))
    figures = summary(scenario(), rows)
    assert (figures["p50_ms"], figures["most_ms"], figures["failed_share"]) == (20, 90, 0)
    assert figures["refused_share"] == pytest.approx(2 / 3)
    assert verdicts(scenario(), rows)["refused_share"] is False
    assert verdicts(scenario(objectives=Objectives(refused_share=0.7)), rows)["refused_share"] is True


def test_run_without_requests_is_no_success() -> None:
    assert not all(verdicts(scenario(), requests()).values())


@pytest.mark.parametrize(("last_hurt", "kept"), [(16.0, True), (18.5, False)])
def test_recovery_counts_from_the_fault_to_the_last_hurt_answer(last_hurt: float, kept: bool) -> None:
    wanted = scenario(
        objectives=Objectives(recovered_seconds=3, failed_share=1),
        faults=(Fault(at_seconds=15, action="kill-stub"),),
    )
    rows = requests((14.0, 1.0, "degraded"), (last_hurt, 1.0, "degraded"), (19.5, 1.0, "answered"))
    assert verdicts(wanted, rows)["recovered_seconds"] is kept


def test_repeated_fault_has_its_moments_and_harm_lasts_until_the_last() -> None:
    fault = Fault(at_seconds=2, action="activate", times=3, every_seconds=4)
    assert fault.moments == [2, 6, 10]
    assert scenario(faults=(fault,)).hurt_until_seconds == 10


def test_recovery_is_unknown_when_nobody_asked_long_enough() -> None:
    wanted = scenario(objectives=Objectives(recovered_seconds=3), faults=(Fault(at_seconds=15, action="kill-stub"),))
    assert verdicts(wanted, requests((16.0, 1.0, "answered")))["recovered_seconds"] is False


def test_step_times_are_means_over_the_span() -> None:
    early, late = (StepTimes("rank", count, {"queue": ms}) for count, ms in ((10, 5.0), (30, 25.0)))
    assert late.since(early) == StepTimes("rank", 20, {"queue": 1.0})
    assert late.since(None) == StepTimes("rank", 30, {"queue": round(25 / 30, 4)})

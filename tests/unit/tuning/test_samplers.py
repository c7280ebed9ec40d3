from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from core.errors import SettingsError
from training.tuning.annealing import AnnealingSampler, Schedule
from training.tuning.ranges import parse_range
from training.tuning.samplers import make_pruner, make_sampler

SPACE = {
    "rate": parse_range("rate", "float:0.001:10:log").distribution(),
    "shift": parse_range("shift", "float:-5:5").distribution(),
    "width": parse_range("width", "int:1:100").distribution(),
    "kind": parse_range("kind", "choice:x,y,z").distribution(),
}
TRIALS = 40
SAMPLERS = ("random", "tpe", "cmaes", "annealing", "nsga2")


def valley(params: dict[str, Any]) -> float:
    """Lowest, 0, at rate 0.1, shift 2, width 30, kind y."""
    return float(
        np.log(params["rate"] / 0.1) ** 2 / 4
        + (params["shift"] - 2) ** 2 / 4
        + ((params["width"] - 30) / 20) ** 2
        + (params["kind"] != "y")
    )


def search(
    make: Callable[[], optuna.samplers.BaseSampler], trials: int = TRIALS, direction: str = "minimize"
) -> optuna.Study:
    """A study in memory whose sampler is new for every trial, as after a crash."""
    study = optuna.create_study(direction=direction)
    for _ in range(trials):
        study.sampler = make()
        trial = study.ask(SPACE)
        study.tell(trial, valley(trial.params) * (1 if direction == "minimize" else -1))
    return study


def named(name: str, seed: int) -> Callable[[], optuna.samplers.BaseSampler]:
    return lambda: make_sampler(name, SPACE, trials=TRIALS, workers=1, objectives=1, seed=seed)


@pytest.mark.parametrize("name", SAMPLERS)
def test_same_seed_gives_same_trials_though_samplers_are_made_anew(name: str) -> None:
    one, two = (
        [trial.params for trial in search(named(name, 3), 14).trials],
        [trial.params for trial in search(named(name, 3), 14).trials],
    )
    assert one == two


@pytest.mark.parametrize("name", SAMPLERS)
def test_trials_of_one_seed_differ_from_each_other(name: str) -> None:
    trials = [tuple(trial.params.values()) for trial in search(named(name, 3), 14).trials]
    assert len(set(trials)) == len(trials)


@pytest.mark.parametrize("name", SAMPLERS)
def test_other_seed_gives_other_trials(name: str) -> None:
    assert search(named(name, 0), 5).trials[4].params != search(named(name, 1), 5).trials[4].params


def test_annealing_beats_random_with_the_same_budget() -> None:
    best = {
        name: np.array([search(named(name, seed)).best_value for seed in range(10)]) for name in ("random", "annealing")
    }
    assert best["annealing"].mean() < 0.7 * best["random"].mean()
    assert (best["annealing"] < best["random"]).sum() >= 7


def test_annealing_climbs_as_well_as_it_descends() -> None:
    down = search(named("annealing", 1)).best_value
    up = search(named("annealing", 1), direction="maximize").best_value
    assert up == pytest.approx(-down)


def test_annealing_proposals_come_closer_together() -> None:
    trials = search(named("annealing", 2), 100).trials
    moves = np.abs(np.diff([trial.params["shift"] for trial in trials]))
    assert moves[-30:].mean() < 0.5 * moves[:30].mean()


def test_annealing_keeps_to_the_space() -> None:
    for trial in search(named("annealing", 4), 60).trials:
        assert all(kind._contains(kind.to_internal_repr(trial.params[name])) for name, kind in SPACE.items())


def test_annealing_moves_whole_numbers_however_short_the_step() -> None:
    space = {"width": parse_range("width", "int:1:3").distribution()}
    study = optuna.create_study(direction="maximize")
    seen = []
    for _ in range(30):
        study.sampler = AnnealingSampler(space, trials=30, seed=0)
        trial = study.ask(space)
        seen.append(trial.params["width"])
        study.tell(trial, float(trial.params["width"]))
    assert set(seen[-15:]) == {2}  # the chain stands at 3; a step too short to leave it goes one on


def test_annealing_ignores_failed_and_does_not_move_to_pruned_trials() -> None:
    study = optuna.create_study(direction="minimize")
    sampler = AnnealingSampler(SPACE, trials=20, seed=0)
    study.sampler = sampler
    for number in range(20):
        trial = study.ask(SPACE)
        if number >= 6:
            study.tell(trial, state=TrialState.PRUNED if number % 2 else TrialState.FAIL)
        else:
            study.tell(trial, valley(trial.params))
    done = study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED))
    assert sampler._replay(done, maximise=False).state == TrialState.COMPLETE


def test_schedule_cools_from_one_to_its_end_and_stays_there() -> None:
    schedule = Schedule.for_budget(50)
    temperatures = [schedule.temperature(proposal) for proposal in range(60)]
    assert temperatures[0] == 1.0
    assert temperatures == sorted(temperatures, reverse=True)
    assert temperatures[-1] == pytest.approx(0.02)


@pytest.mark.parametrize("name", ["cmaes", "annealing"])
def test_sampler_of_one_objective_refuses_two(name: str) -> None:
    with pytest.raises(SettingsError, match="one objective"):
        make_sampler(name, SPACE, trials=5, workers=1, objectives=2, seed=0)


def test_cmaes_refuses_choices_only() -> None:
    with pytest.raises(SettingsError, match="needs a number"):
        make_sampler("cmaes", {"kind": SPACE["kind"]}, trials=5, workers=1, objectives=1, seed=0)


def test_several_objectives_refuse_a_named_pruner() -> None:
    with pytest.raises(SettingsError, match="cannot be pruned"):
        make_pruner("median", sampler="tpe", objectives=2, steps=3)


@pytest.mark.parametrize("sampler", ["grid", "cmaes"])
def test_sampler_that_needs_complete_trials_is_not_pruned_unless_asked(sampler: str) -> None:
    assert isinstance(make_pruner("auto", sampler=sampler, objectives=1, steps=3), optuna.pruners.NopPruner)
    assert isinstance(make_pruner("median", sampler=sampler, objectives=1, steps=3), optuna.pruners.MedianPruner)


def test_others_are_pruned_by_the_median() -> None:
    assert isinstance(make_pruner("auto", sampler="tpe", objectives=1, steps=3), optuna.pruners.MedianPruner)

"""The search itself: propose, measure, write down; whatever is measured.

Knows nothing about models. An objective says what its values are called and measures settings; the same loop tunes
recall models, the ranker, or anything else that has settings and figures.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from filelock import FileLock
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from core.errors import ConchError, TrainingError
from training.tuning.journal import REASON, StudyPlace
from training.tuning.objective import Measurement, Objective, as_json, from_json
from training.tuning.samplers import make_pruner, make_sampler
from training.tuning.sequence import CUT_SHORT
from training.tuning.space import SearchSpace

MEASURED = "measured"
"""User attribute of complete trials: everything measured, objectives included."""
BASELINE = "baseline"
"""User attribute of the study: the same for the settings as they were."""
SAME_AS = "same_as"
"""User attribute of trials whose settings had been measured before."""
STARTS_FROM_NOW = ("tpe", "cmaes", "annealing", "nsga2")
"""Samplers that first try the settings as they are, where those lie in the space."""


@dataclass(frozen=True)
class Plan:
    """How a study searches. Travels to worker processes.

    Attributes:
        place: Its folder and directions.
        objectives: Names of the values that are optimised, the first is the quality.
        space: What may be changed.
        sampler: See ``tune.sampler``.
        pruner: See ``tune.pruner``.
        trials: Trials in all.
        workers: Processes.
        steps: Most values that a trial reports.
        seed: Of the sampler.
        grid_points: Values taken from a range.
        timeout_seconds: No trial starts later than this; infinite for no limit.
    """

    place: StudyPlace
    objectives: tuple[str, ...]
    space: SearchSpace
    sampler: str
    pruner: str
    trials: int
    workers: int
    steps: int
    seed: int
    grid_points: int
    timeout_seconds: float = math.inf

    def open(self) -> Study:
        """The study with its sampler and pruner."""
        count = len(self.objectives)
        distributions = self.space.distributions()
        sampler = make_sampler(
            self.sampler, distributions, trials=self.trials, workers=self.workers, objectives=count, seed=self.seed
        )
        pruner = make_pruner(self.pruner, sampler=self.sampler, objectives=count, steps=self.steps)
        return self.place.open(sampler, pruner)


def baseline_of(study: Study, place: StudyPlace, objective: Objective) -> Measurement:
    """What the settings as they are measure: taken from the journal, else measured now and written there.

    Raises:
        ConchError: They cannot be measured; a search would compare with nothing.
    """
    known = study.user_attrs.get(BASELINE)
    if known is None:
        measured = objective.measure({}, lambda step, quality: None)
        known = as_json(measured)
        broken = [name for name, value in known["values"].items() if not math.isfinite(value)]
        if broken:
            raise TrainingError(
                "the settings as they are cannot be measured, so there is nothing to compare with",
                expected="finite values",
                found=f"{', '.join(broken)} is not finite",
                next_step="start from settings that train",
            )
        _keep(place, BASELINE, measured)
        study.set_user_attr(BASELINE, known)
    found = from_json(known)
    objective.anchor(found)
    return found


def queue_first(study: Study, plan: Plan, now: Mapping[str, Any] | None) -> int:
    """Queues what does not depend on any result: a grid's points, or the settings as they are.

    A grid larger than the budget is tried in random order, so that its first part covers it evenly.

    Args:
        study: New, or with earlier trials, whose settings are not queued again.
        plan: Names the sampler.
        now: The settings as they are, as parameters; None where they lie outside the space.

    Returns:
        How many trials the study can have: the grid's size, or the plan's trials.
    """
    known = {_key(trial.system_attrs.get("fixed_params", trial.params)) for trial in study.get_trials(deepcopy=False)}
    if plan.sampler != "grid":
        if plan.sampler in STARTS_FROM_NOW and now is not None and not known:
            study.enqueue_trial(dict(now))
        return plan.trials
    names = list(plan.space.ranges)
    points = list(itertools.product(*(plan.space.ranges[name].grid(plan.grid_points) for name in names)))
    order = (
        np.random.default_rng(plan.seed).permutation(len(points)) if len(points) > plan.trials else range(len(points))
    )
    for place in list(order)[: plan.trials]:
        params = dict(zip(names, points[int(place)], strict=True))
        if _key(params) not in known:
            study.enqueue_trial(params)
    return min(plan.trials, len(points))


def run_trials(
    study: Study,
    plan: Plan,
    objective: Objective,
    *,
    total: int,
    after: Callable[[FrozenTrial], None] = lambda trial: None,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Runs trials until the study has ``total`` of them; several processes may do so at once.

    Args:
        study: From ``plan.open()``.
        plan: How to search.
        objective: Measures.
        total: Trials in all, those of earlier runs included.
        after: Called with each trial that ended here.
        clock: Seconds.
    """
    started = clock()
    distributions = plan.space.distributions()
    turn = FileLock(plan.place.folder / "turn.lock")
    while clock() - started < plan.timeout_seconds:
        with turn:  # one process counts and starts at a time, so that no trial is one too many
            if begun(study) >= total:
                return
            trial = study.ask(distributions)
        _measure(study, trial, plan, objective)
        after(study.get_trials(deepcopy=False)[trial.number])


def begun(study: Study) -> int:
    """Trials that run or ended, without those that a killed process cut short."""
    return sum(
        trial.state != TrialState.WAITING and not trial.user_attrs.get(CUT_SHORT)
        for trial in study.get_trials(deepcopy=False)
    )


def _measure(study: Study, trial: Trial, plan: Plan, objective: Objective) -> None:
    started = time.perf_counter()
    twin = _twin(study, trial)
    if twin is not None:
        trial.set_user_attr(MEASURED, twin.user_attrs[MEASURED])
        trial.set_user_attr(SAME_AS, twin.number)
        study.tell(trial, twin.values)
        return

    def report(step: int, quality: float) -> None:
        if len(plan.objectives) > 1:
            return
        trial.report(quality, step)
        if trial.should_prune():
            raise optuna.TrialPruned(f"{quality:.4f} at step {step} is worse than other trials were there")

    try:
        found = objective.measure(plan.space.decode(trial.params), report)
    except optuna.TrialPruned as pruned:
        trial.set_user_attr(REASON, str(pruned))
        trial.set_user_attr("seconds", round(time.perf_counter() - started, 3))
        study.tell(trial, state=TrialState.PRUNED)
        return
    except (ConchError, np.linalg.LinAlgError, FloatingPointError, MemoryError) as error:
        _fail(study, trial, " ".join(str(error).split()) or type(error).__name__)
        return
    values = [found.values[name] for name in plan.objectives]
    broken = [name for name in found.values if not math.isfinite(found.values[name])]
    if broken:
        _fail(study, trial, f"{', '.join(broken)} is not finite")
        return
    _keep(plan.place, str(trial.number), found)
    trial.set_user_attr(MEASURED, as_json(found))
    trial.set_user_attr("seconds", round(time.perf_counter() - started, 3))
    study.tell(trial, values)


def _keep(place: StudyPlace, name: str, found: Measurement) -> None:
    if found.deviations is not None:
        place.deviations(name).parent.mkdir(exist_ok=True)
        np.save(place.deviations(name), found.deviations.astype(np.float32))


def _fail(study: Study, trial: Trial, reason: str) -> None:
    trial.set_user_attr(REASON, reason)
    study.tell(trial, state=TrialState.FAIL)


def _twin(study: Study, trial: Trial) -> FrozenTrial | None:
    """A complete trial with the same settings: measuring is deterministic, so its values hold."""
    wanted = _key(trial.params)
    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return next((found for found in done if _key(found.params) == wanted), None)


def _key(params: Mapping[str, Any]) -> str:
    return repr(sorted(params.items()))

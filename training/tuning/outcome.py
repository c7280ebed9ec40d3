"""What a study found, read from its journal."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from optuna.exceptions import ExperimentalWarning
from optuna.importance import get_param_importances
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from training.tuning.journal import REASON
from training.tuning.objective import Measurement, from_json
from training.tuning.picking import Candidate, Limits, ProfileRow, best, one_standard_error, pick, profile
from training.tuning.ranges import Choices
from training.tuning.sequence import CUT_SHORT
from training.tuning.study import BASELINE, MEASURED, SAME_AS, Plan

FEWEST_FOR_IMPORTANCE = 8
"""Complete trials below which importances are noise."""
ROUGH_BELOW = 10
"""Complete trials per setting below which they are called rough."""
LONGEST_PROFILE = 12


@dataclass(frozen=True)
class TrialRow:
    """One trial as people read it; see :class:`Candidate` for the figures."""

    number: int
    state: str
    values: Mapping[str, Any]
    measured: Candidate | None
    seconds: float | None
    same_as: int | None
    reason: str


@dataclass(frozen=True)
class Outcome:
    """Everything that is written down.

    Attributes:
        study: Name.
        model: What was tuned.
        metric: What quality is.
        scheme: What it was measured on.
        sampler: Who proposed.
        objectives: What was optimised.
        space: Ranges as text.
        data: Identity of the dataset.
        date: When this was written.
        seconds: Added up over all trials.
        baseline: The settings as they were.
        best: Highest quality of all.
        one_se: Smallest within one standard error of it.
        one_se_paired: Likewise, by the standard error of the difference on the same users.
        picked: What the rule and the limits take; None where nothing keeps to the limits.
        rule: best or one-se.
        limits: What may be picked at most.
        front: Trials that no other beats in everything, with several objectives.
        trials: All of them, those that a killed process cut short left out.
        importances: Share of each setting in the spread of quality; empty where it cannot be said.
        importance_note: How far to trust them.
        profiles: Per setting with few values: what each value reached.
        windows: The picked candidate's details.
    """

    study: str
    model: str
    metric: str
    scheme: str
    sampler: str
    objectives: tuple[str, ...]
    space: Mapping[str, str]
    data: str
    date: datetime
    seconds: float
    baseline: Candidate
    best: Candidate
    one_se: Candidate
    one_se_paired: Candidate
    picked: Candidate | None
    rule: str
    limits: Limits
    front: tuple[Candidate, ...]
    trials: tuple[TrialRow, ...]
    importances: Mapping[str, float]
    importance_note: str
    profiles: Mapping[str, list[ProfileRow]]
    windows: Mapping[str, Any]

    def count(self, state: str) -> int:
        """Trials that ended so: complete, pruned or failed."""
        return sum(trial.state == state for trial in self.trials)


def outcome_of(
    study: Study,
    plan: Plan,
    *,
    model: str,
    metric: str,
    scheme: str,
    rule: str,
    limits: Limits,
    data: str,
    date: datetime,
) -> Outcome:
    """Reads a study that has its baseline."""
    raw = [trial for trial in study.get_trials(deepcopy=False) if not trial.user_attrs.get(CUT_SHORT)]
    trials = tuple(_row(trial, plan) for trial in raw if trial.state != TrialState.WAITING)
    base = from_json(study.user_attrs[BASELINE])
    baseline = _candidate(None, {}, base, _deviations(plan, BASELINE))
    tried = [trial.measured for trial in trials if trial.measured is not None]
    candidates = [baseline, *tried]
    picked = pick(candidates, rule, limits)
    fronts = {trial.number for trial in study.best_trials} if len(plan.objectives) > 1 else set()
    importances, note = _importances(study, len(plan.space.ranges))
    details = {trial.number: trial.user_attrs[MEASURED]["details"] for trial in raw if MEASURED in trial.user_attrs}
    windows = {} if picked is None else base.details if picked.number is None else details[picked.number]
    return Outcome(
        study=plan.place.name,
        model=model,
        metric=metric,
        scheme=scheme,
        sampler=plan.sampler,
        objectives=plan.objectives,
        space=plan.space.as_text(),
        data=data,
        date=date,
        seconds=round(sum(trial.seconds or 0.0 for trial in trials), 2),
        baseline=baseline,
        best=best(candidates),
        one_se=one_standard_error(candidates),
        one_se_paired=one_standard_error(candidates, paired=True),
        picked=picked,
        rule=rule,
        limits=limits,
        front=tuple(sorted((found for found in tried if found.number in fronts), key=lambda found: -found.quality)),
        trials=trials,
        importances=importances,
        importance_note=note,
        profiles=_profiles(tried, plan),
        windows=windows,
    )


def _row(trial: FrozenTrial, plan: Plan) -> TrialRow:
    values = plan.space.decode(trial.params)
    told = trial.user_attrs.get(MEASURED)
    complete = trial.state == TrialState.COMPLETE
    kept = trial.user_attrs.get(SAME_AS, trial.number)
    return TrialRow(
        trial.number,
        {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}.get(trial.state.name, "running"),
        values,
        _candidate(trial.number, values, from_json(told), _deviations(plan, str(kept))) if complete and told else None,
        trial.user_attrs.get("seconds"),
        trial.user_attrs.get(SAME_AS),
        trial.user_attrs.get(REASON, ""),
    )


def _deviations(plan: Plan, trial: str) -> np.ndarray | None:
    file = plan.place.deviations(trial)
    return np.load(file, allow_pickle=False) if file.is_file() else None


def _candidate(
    number: int | None, values: Mapping[str, Any], found: Measurement, deviations: np.ndarray | None
) -> Candidate:
    return Candidate(
        number,
        values,
        found.values["quality"],
        found.standard_error,
        found.values.get("size_bytes"),
        found.values.get("latency_ms"),
        deviations,
    )


def _profiles(tried: list[Candidate], plan: Plan) -> dict[str, list[ProfileRow]]:
    """Of settings whose values come back: choices, stepped and whole numbers, all of a grid, or the only one."""
    all_of_them = plan.sampler == "grid" or len(plan.space.ranges) == 1
    found = {}
    for key, searched in plan.space.ranges.items():
        rows = profile(tried, key)
        returns = isinstance(searched, Choices) or searched.whole or searched.step is not None
        if rows and (all_of_them or (returns and len(rows) <= LONGEST_PROFILE)):
            found[key] = rows
    return found


def _importances(study: Study, settings: int) -> tuple[dict[str, float], str]:
    """PED-ANOVA's (Watanabe et al. 2023): what tells the best trials from the rest."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    qualities = np.array([trial.values[0] for trial in complete])
    if settings < 2:
        return {}, "only one setting was searched"
    if len(complete) < FEWEST_FOR_IMPORTANCE:
        return {}, f"{len(complete)} complete trials are too few to say; {FEWEST_FOR_IMPORTANCE} are the least"
    if float(qualities.std()) == 0:
        return {}, "all trials were equally good"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        warnings.filterwarnings("ignore", "PedAnovaImportanceEvaluator computes", UserWarning)
        # PED-ANOVA asks what makes its target low
        found = get_param_importances(study, target=lambda trial: -trial.values[0])
    rough = len(complete) < ROUGH_BELOW * settings
    note = f"from {len(complete)} complete trials of {settings} settings" + (", so rough" if rough else "")
    return {key: round(float(share), 4) for key, share in found.items()}, note

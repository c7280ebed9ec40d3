"""Where a trial stands in its study, the tries that a crash cut short left out."""

from __future__ import annotations

from optuna.study import Study
from optuna.trial import FrozenTrial

CUT_SHORT = "cut_short"
"""User attribute of trials that ended with their process; each was queued again under a new number."""


def place_of(study: Study, trial: FrozenTrial) -> int:
    """The trial's number, as it would be had no process ever been killed: what random draws are seeded with."""
    lost = sum(
        1
        for found in study.get_trials(deepcopy=False)
        if found.number < trial.number and found.user_attrs.get(CUT_SHORT)
    )
    return trial.number - lost

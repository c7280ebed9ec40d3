"""The samplers by name, each drawing from a generator of its own per trial."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, CmaEsSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from core.errors import SettingsError
from training.tuning.annealing import AnnealingSampler
from training.tuning.sequence import place_of

ONE_OBJECTIVE = ("cmaes", "annealing")
"""Samplers that follow a single value."""
NEVER_PRUNED = ("grid", "cmaes")
"""A grid's result should not depend on its order, and CMA-ES waits for a whole generation of complete trials."""
STARTUP_SHARE = 4
"""A quarter of the trials, four to ten, are random before TPE starts."""
POPULATION = (8, 50)
FIRST_COMPARED = 4
"""Trials that must have ended before a median says anything."""


class PerTrial(BaseSampler):
    """A sampler made anew for each trial, seeded by the trial's place in the study.

    What Optuna's samplers remember of earlier trials is in the study; only their generators are not. Seeding those
    by the trial makes an interrupted search equal to an uninterrupted one.

    Args:
        make: Gives the sampler of a seed.
        seed: The study's.
    """

    def __init__(self, make: Callable[[int], BaseSampler], seed: int) -> None:
        self._make = make
        self._seed = seed
        self._inner = make(seed)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        state = np.random.SeedSequence((self._seed, place_of(study, trial))).generate_state(1)
        self._inner = self._make(int(state[0]))
        self._inner.before_trial(study, trial)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._inner.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._inner.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._inner.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        self._inner.after_trial(study, trial, state, values)


def make_sampler(
    name: str, space: Mapping[str, BaseDistribution], *, trials: int, workers: int, objectives: int, seed: int
) -> BaseSampler:
    """The named sampler.

    Args:
        name: See ``tune.sampler``. A grid's trials are queued before it starts; its sampler has nothing to propose.
        space: What may be changed.
        trials: Budget.
        workers: With more than one, TPE keeps away from what others are trying.
        objectives: How many values a trial has.
        seed: Decides all draws.

    Raises:
        SettingsError: A sampler that cannot handle this space or these objectives.
    """
    if objectives > 1 and name in ONE_OBJECTIVE:
        raise SettingsError(
            f"{name} follows one objective only",
            where="tune.sampler",
            expected="tpe, nsga2, random or grid",
            found=f"{objectives} objectives",
        )
    if name == "cmaes" and all(isinstance(kind, CategoricalDistribution) for kind in space.values()):
        raise SettingsError("CMA-ES needs a number to search", where="tune.sampler", found="choices only")
    if name == "annealing":
        return AnnealingSampler(space, trials=trials, seed=seed)

    def make(seed: int) -> BaseSampler:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)  # multivariate TPE and CMA-ES with margin
            if name == "tpe":
                startup = int(np.clip(trials // STARTUP_SHARE, 4, 10))
                return TPESampler(n_startup_trials=startup, multivariate=True, constant_liar=workers > 1, seed=seed)
            if name == "cmaes":
                return CmaEsSampler(seed=seed, with_margin=True, warn_independent_sampling=False)
            if name == "nsga2":
                return NSGAIISampler(population_size=int(np.clip(trials // STARTUP_SHARE, *POPULATION)), seed=seed)
            return RandomSampler(seed=seed)

    return PerTrial(make, seed)


def make_pruner(name: str, *, sampler: str, objectives: int, steps: int) -> BasePruner:
    """The named pruner.

    Args:
        name: See ``tune.pruner``.
        sampler: Some are not pruned by ``auto``.
        objectives: Several cannot be pruned.
        steps: Most values that a trial reports.

    Raises:
        SettingsError: A pruner named for several objectives.
    """
    if objectives > 1 and name in ("median", "hyperband"):
        raise SettingsError("several objectives cannot be pruned", where="tune.pruner", expected="auto or none")
    if name == "auto":
        name = "none" if objectives > 1 or sampler in NEVER_PRUNED else "median"
    if name == "median":
        return MedianPruner(n_startup_trials=FIRST_COMPARED, n_min_trials=FIRST_COMPARED)
    if name == "hyperband":
        return HyperbandPruner(min_resource=1, max_resource=max(2, steps), reduction_factor=3)
    return NopPruner()

"""Simulated annealing as an Optuna sampler (Kirkpatrick, Gelatt and Vecchi 1983).

The chain is never stored. It is replayed from the finished trials: each was a proposal, and whether it became the
chain's place is a coin that depends on the seed and the trial's place in the chain alone. So an interrupted search
goes on as if it had not been.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from training.tuning.sequence import place_of

START_TEMPERATURE, END_TEMPERATURE = 1.0, 0.02
"""In standard deviations of the warm-up's values: at first most worsenings pass, at last hardly any."""
START_STEP, END_STEP = 0.3, 0.04
"""Standard deviation of a move, as a share of the range."""
WARM_UP_SHARE = 0.15
FEWEST_WARM_UP, MOST_WARM_UP = 3, 10
MOVE_PROBABILITY = 0.5
"""Chance of each setting to move in a proposal; at least one moves."""


@dataclass(frozen=True)
class Schedule:
    """Temperature and step over the proposals, both falling geometrically.

    Attributes:
        warm_up: Random trials before the chain starts.
        proposals: Proposals after those.
    """

    warm_up: int
    proposals: int

    @classmethod
    def for_budget(cls, trials: int) -> Schedule:
        """15 % of the trials warm up, three to ten of them."""
        warm_up = int(np.clip(round(WARM_UP_SHARE * trials), FEWEST_WARM_UP, MOST_WARM_UP))
        return cls(warm_up, max(1, trials - warm_up))

    def progress(self, proposal: int) -> float:
        """0 at the first proposal, 1 at the last and beyond."""
        return min(1.0, proposal / max(1, self.proposals - 1))

    def temperature(self, proposal: int) -> float:
        """In units of the warm-up's spread."""
        return float(START_TEMPERATURE * (END_TEMPERATURE / START_TEMPERATURE) ** self.progress(proposal))

    def step(self, proposal: int) -> float:
        """As a share of each range."""
        return float(START_STEP * (END_STEP / START_STEP) ** self.progress(proposal))


class AnnealingSampler(BaseSampler):
    """Walks from one setting to a near one; accepts what is worse with probability ``exp(-worsening / temperature)``.

    Pruned trials count as rejected; failed ones never happened.

    Args:
        space: What may be changed.
        trials: Budget that the schedule is laid out for; more trials stay at its end.
        seed: Decides everything, with the trials' values.
    """

    def __init__(self, space: Mapping[str, BaseDistribution], *, trials: int, seed: int) -> None:
        self._space = dict(space)
        self._schedule = Schedule.for_budget(trials)
        self._seed = seed

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The whole space: all settings move together."""
        return self._space

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """A random place during the warm-up, then a neighbour of the chain's place."""
        rng = np.random.default_rng((self._seed, 0, place_of(study, trial)))
        done = [
            found
            for found in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
            if found.params.keys() >= search_space.keys()
        ]
        complete = sum(found.state == TrialState.COMPLETE for found in done)
        if complete < min(2, self._schedule.warm_up) or len(done) < self._schedule.warm_up:
            return {name: _anywhere(kind, rng) for name, kind in search_space.items()}
        here = self._replay(done, maximise=study.direction == StudyDirection.MAXIMIZE)
        step = self._schedule.step(len(done) - self._schedule.warm_up)
        return _neighbour({name: here.params[name] for name in search_space}, search_space, step, rng)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """A random value for what is not in the space."""
        rng = np.random.default_rng((self._seed, 1, place_of(study, trial), *param_name.encode()))
        return _anywhere(param_distribution, rng)

    def _replay(self, done: Sequence[FrozenTrial], *, maximise: bool) -> FrozenTrial:
        """The chain's place after the finished trials."""
        sign = 1.0 if maximise else -1.0
        first, rest = done[: self._schedule.warm_up], done[self._schedule.warm_up :]
        scored = [found for found in first if found.state == TrialState.COMPLETE] or [
            next(found for found in done if found.state == TrialState.COMPLETE)
        ]
        values = np.array([sign * (found.value or 0.0) for found in scored])
        spread = max(float(values.std()), 1e-12)
        here, height = scored[int(values.argmax())], float(values.max())
        for proposal, found in enumerate(rest):
            if found.state != TrialState.COMPLETE:
                continue
            loss = height - sign * (found.value or 0.0)
            coin = np.random.default_rng((self._seed, 2, proposal)).random()
            if loss <= 0 or coin < math.exp(-loss / (spread * self._schedule.temperature(proposal))):
                here, height = found, sign * (found.value or 0.0)
        return here


def _anywhere(kind: BaseDistribution, rng: np.random.Generator) -> Any:
    if isinstance(kind, CategoricalDistribution):
        return kind.choices[int(rng.integers(len(kind.choices)))]
    return _from_unit(kind, float(rng.random()))


def _neighbour(
    here: Mapping[str, Any], space: Mapping[str, BaseDistribution], step: float, rng: np.random.Generator
) -> dict[str, Any]:
    names = [name for name, kind in space.items() if not kind.single()]
    moved = rng.random(len(names)) < MOVE_PROBABILITY
    if names:
        moved[int(rng.integers(len(names)))] = True
    there = dict(here)
    for name, moves in zip(names, moved, strict=True):
        if moves:
            there[name] = _moved(here[name], space[name], step, rng)
    return there


def _moved(value: Any, kind: BaseDistribution, step: float, rng: np.random.Generator) -> Any:
    """Another value near ``value``: a normal step reflected at the ends, or any other choice."""
    if isinstance(kind, CategoricalDistribution):
        others = [choice for choice in kind.choices if choice != value]
        return others[int(rng.integers(len(others)))]
    move = step * rng.standard_normal()
    place = abs((_to_unit(kind, value) + move) % 2)
    found = _from_unit(kind, 2 - place if place > 1 else place)
    if found != value or not isinstance(kind, IntDistribution):
        return found
    up = value + kind.step if move > 0 else value - kind.step  # too short a step for a whole number: one on
    return up if kind.low <= up <= kind.high else 2 * value - up


def _to_unit(kind: BaseDistribution, value: float) -> float:
    low, high = _ends(kind)
    return ((math.log(value) if kind.log else value) - low) / (high - low)  # type: ignore[attr-defined]


def _from_unit(kind: BaseDistribution, place: float) -> Any:
    assert isinstance(kind, IntDistribution | FloatDistribution)
    low, high = _ends(kind)
    value = low + place * (high - low)
    value = math.exp(value) if kind.log else value
    if kind.step is not None:
        value = kind.low + round((value - kind.low) / kind.step) * kind.step
    value = min(max(value, kind.low), kind.high)
    return round(value) if isinstance(kind, IntDistribution) else float(value)


def _ends(kind: BaseDistribution) -> tuple[float, float]:
    assert isinstance(kind, IntDistribution | FloatDistribution)
    return (math.log(kind.low), math.log(kind.high)) if kind.log else (float(kind.low), float(kind.high))

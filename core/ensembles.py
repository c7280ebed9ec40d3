"""What a repository serves: which ensembles there are, which steps each runs, and how their tensors meet."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from core.tensors import (
    CONTEXT,
    ENSEMBLE,
    LIKE_ITEMS,
    NAME_USERS,
    NEAREST_ITEMS,
    NEAREST_USERS,
    RATE,
    RATE_ITEMS,
    RATING,
    RESPOND,
    SESSION_ITEMS,
    SIMILAR_ITEMS,
    SIMILAR_USERS,
    StepSpec,
    TensorSpec,
    graph_steps,
)

MODEL_SEPARATOR = "."
"""Stands in no step's name."""
Wire = tuple[StepSpec, dict[str, str], dict[str, str]]
"""A step, and the ensemble's tensor for each of its inputs and outputs."""


@dataclass(frozen=True)
class Ensemble:
    """One entry point: a request goes through its steps.

    Attributes:
        spec: Its name and signature.
        steps: In order; those that do not need each other run in parallel.
        renamed: Tensors of the steps that have another name in the ensemble.
    """

    spec: StepSpec
    steps: tuple[StepSpec, ...]
    renamed: Mapping[str, str] = field(default_factory=dict)

    def wires(self) -> Iterator[Wire]:
        """Each step with its tensors, but for optional inputs that nothing provides and outputs that nothing needs.

        Triton 2.51 refuses an ensemble with a tensor that nobody reads.
        """
        there = {tensor.name for tensor in self.spec.inputs}
        there.update(tensor.name for step in self.steps for tensor in step.outputs)
        read = {tensor.name for tensor in self.spec.outputs}
        read.update(self._name(tensor) for step in self.steps for tensor in step.inputs)
        for step in self.steps:
            inputs = {t.name: self._name(t) for t in step.inputs if not t.optional or self._name(t) in there}
            yield step, inputs, {t.name: t.name for t in step.outputs if t.name in read}

    def _name(self, tensor: TensorSpec) -> str:
        return self.renamed.get(tensor.name, tensor.name)


EXTRAS = {
    ensemble.spec.name: ensemble
    for ensemble in (
        Ensemble(SIMILAR_ITEMS, (CONTEXT, NEAREST_ITEMS, RESPOND), {SESSION_ITEMS.name: LIKE_ITEMS.name}),
        Ensemble(SIMILAR_USERS, (CONTEXT, NEAREST_USERS, NAME_USERS)),
        Ensemble(RATE, (CONTEXT, RATE_ITEMS, RATING)),
    )
}
"""What a release may serve beside ``recommend``, by name."""


def served_ensembles(sources: Sequence[str], extras: Collection[str] = ()) -> tuple[Ensemble, ...]:
    """The ensembles of a release, ``recommend`` last: a release is live when that one is.

    Args:
        sources: Recall sources in order.
        extras: Names in ``EXTRAS``.
    """
    recommend = Ensemble(ENSEMBLE, (CONTEXT, *graph_steps(sources), RESPOND))
    return (*(ensemble for name, ensemble in EXTRAS.items() if name in extras), recommend)


def release_model(alias: str, release_id: str) -> str:
    """Name of the immutable ensemble of one release beside its alias, for example ``recommend.r000012``.

    It never changes once it is loaded, so that answers under this name may be cached and mixed with no other.
    """
    return f"{alias}{MODEL_SEPARATOR}{release_id}"


def base_model(name: str) -> str:
    """The step or alias that a served model is a copy of: ``recommend`` of ``recommend.r000012``."""
    return name.partition(MODEL_SEPARATOR)[0]


def leaf_steps(ensembles: Sequence[Ensemble]) -> tuple[StepSpec, ...]:
    """The models that the ensembles are made of, each once; those of ``recommend`` first."""
    return tuple({step.name: step for ensemble in reversed(ensembles) for step in ensemble.steps}.values())

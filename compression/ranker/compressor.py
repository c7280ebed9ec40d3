"""Candidates for the rank step, mildest first: packed tables at fewer and fewer bits, then int8 layers as well."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, cast

from torch import Tensor, nn

from compression.candidate import Candidate, Pass, check_changed
from compression.ranker.dense import input_scales, quantize_layers
from compression.ranker.fold import TableBits, fold
from compression.ranker.module import CompactNetwork
from compression.ranker.requests import calibration_requests
from compression.ranker.store import compact_facts, compact_tensors, fill, restore_compact
from compression.task import Task
from training.models.ranker import ItemTables, Ranker, RankerShape
from training.ratings.model import ValuePosterior

NAME = "rank"
ORIGINAL = "fp32"
RATING = "tables.rating."


@dataclass(frozen=True)
class Plan:
    """One candidate.

    Attributes:
        name: Of the candidate.
        parent: What it differs from.
        bits: Of the tables.
        energy: Kept by the keys' leading directions.
        dense: Whether dense layers are int8.
        short: Whether only as many candidates are scored as are returned.
    """

    name: str
    parent: str
    bits: TableBits
    energy: float = 1.0
    dense: bool = False
    short: bool = False


MIXED = TableBits(keys=4, values=8, sums=4, statistics=8, attributes=8)
PLANS = (
    Plan("packed", ORIGINAL, TableBits()),
    Plan("fp16", "packed", TableBits.all(16)),
    Plan("int8", "packed", TableBits.all(8)),
    Plan("int8-qdq", "int8", TableBits.all(8), dense=True),
    Plan("rank-int8-qdq", "int8-qdq", TableBits.all(8), energy=0.9, dense=True),
    Plan("int4-qdq", "int8-qdq", MIXED, dense=True),
    Plan("short-int8", "int8", TableBits.all(8), short=True),
    Plan("short-int8-qdq", "int8-qdq", TableBits.all(8), dense=True, short=True),
    Plan("short-rank-int8-qdq", "rank-int8-qdq", TableBits.all(8), energy=0.9, dense=True, short=True),
)


class RankerCompressor:
    """See :class:`compression.registry.Compressor`."""

    def original(self, task: Task) -> Candidate:
        """The ranker as it was trained."""
        ranker = cast(Ranker, task.model)
        facts = {"form": "plain", "shape": ranker.shape.to_facts()}
        return Candidate(task.step, ORIGINAL, NAME, ranker, compact_tensors(ranker), facts)

    def candidates(self, task: Task) -> Iterator[Candidate]:
        """One per plan."""
        made = {ORIGINAL: self.original(task)}
        requests = calibration_requests(task)
        shape = cast(Ranker, task.model).shape
        can_be_short = len(shape.sources) * shape.candidates > shape.returned
        for plan in PLANS:
            if plan.short and not can_be_short:
                continue  # everything that is scored is returned
            parent = made[plan.parent]
            candidate = check_changed(parent, compress(cast(Ranker, task.model), plan, parent, requests))
            made[plan.name] = candidate
            yield candidate

    def make(self, task: Task, name: str) -> Candidate:
        """The candidate of one plan, its parents' passes before it."""
        original = self.original(task)
        if name == ORIGINAL:
            return original
        plan = next(plan for plan in PLANS if plan.name == name)
        return compress(cast(Ranker, task.model), plan, self.make(task, plan.parent), calibration_requests(task))

    def restore(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> nn.Module:
        """A packed or a plain ranker."""
        return restore_compact(tensors, facts) if facts["form"] == "packed" else restore_plain(tensors, facts)


def compress(ranker: Ranker, plan: Plan, parent: Candidate, requests: list[tuple[Tensor, ...]]) -> Candidate:
    """The candidate of one plan."""
    started = time.perf_counter()
    proposed, returned = len(ranker.shape.sources) * ranker.shape.candidates, ranker.shape.returned
    model, unchanged = fold(ranker, plan.bits, plan.energy, kept=returned if plan.short else 0)
    metrics: dict[str, Any] = {"rank": asdict(model.ranks), "scored_share": (model.kept or proposed) / proposed}
    for at, member in enumerate(model.members):
        if plan.dense and isinstance(member, CompactNetwork):
            scales = input_scales(member.network, lambda: run_all(model, requests))
            unchanged += quantize_layers(member.network, scales)
            metrics[f"input_scales {at}"] = scales
    parameters = {"bits": asdict(plan.bits), "energy": plan.energy, "dense_int8": plan.dense, "kept": model.kept}
    done = Pass(plan.name, parameters, time.perf_counter() - started)
    tensors, facts = compact_tensors(model), compact_facts(model)
    return Candidate(
        parent.step, plan.name, NAME, model, tensors, facts, parent.name, (*parent.passes, done), unchanged, metrics
    )


def run_all(model: nn.Module, requests: list[tuple[Tensor, ...]]) -> None:
    """Sends all requests through."""
    for request in requests:
        model(*request)


def restore_plain(tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> Ranker:
    """The ranker that ``original`` stands for. Raises ArtifactError where a tensor does not fit."""
    shape = RankerShape.from_facts(facts["shape"])
    rating = None
    if shape.rating is not None:
        own = {name.removeprefix(RATING): tensor for name, tensor in tensors.items() if name.startswith(RATING)}
        rating = ValuePosterior.from_tensors(own, shape.rating)
    ranker = Ranker(shape, ItemTables.empty(shape, rating))
    fill(ranker, tensors)
    return ranker.eval()

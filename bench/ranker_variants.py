"""Rankers made smaller in every way that Conch knows, for one measurement of all of them side by side."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from compression.candidate import Unchanged
from compression.ranker.compressor import MIXED, run_all
from compression.ranker.dense import input_scales, linear_layers, quantize_layers
from compression.ranker.distil import Lesson, distil, new_student, train_rounded
from compression.ranker.fold import TableBits, fold
from compression.ranker.module import CompactNetwork
from compression.ranker.prune import Target, prune_to
from core.sections import RankerSettings
from training.models.ranker import Ranker
from training.models.ranker_members import NetworkMember
from training.ranking.combining import train_members
from training.ranking.examples import Examples

SMALL = Target((16, 8), 1)
TEACHER = ("network", "network", "trees")
TEACHER_TREES, TEACHER_DEPTH = 100, 3
FINE_TUNE_EPOCHS, STUDENT_EPOCHS = 1, 4


@dataclass(frozen=True)
class Variant:
    """One ranker to be measured.

    Attributes:
        name: Unique.
        module: What scores and is exported.
        seconds: That it took.
        unchanged: What was asked for and left alone.
        exported: Whether file and latency are of interest, or its quality alone.
    """

    name: str
    module: nn.Module
    seconds: float
    unchanged: tuple[Unchanged, ...] = ()
    exported: bool = True


def variants(
    ranker: Ranker,
    examples: Sequence[Examples],
    requests: list[tuple[Tensor, ...]],
    settings: RankerSettings,
    seed: int,
) -> Iterator[Variant]:
    """The original first.

    Args:
        ranker: Trained; one network.
        examples: Users of label windows, for fine-tuning; without any, nothing is fine-tuned.
        requests: For calibration.
        settings: Rates and batch size.
        seed: Of all training.
    """
    yield Variant("fp32", ranker, 0.0)
    yield _packed("packed", ranker, requests, TableBits())
    yield _packed("fp16", ranker, requests, TableBits.all(16))
    yield _packed("int8", ranker, requests, TableBits.all(8))
    yield _packed("int8-qdq", ranker, requests, TableBits.all(8), dense=True)
    yield _packed("rank-int8-qdq", ranker, requests, TableBits.all(8), energy=0.9, dense=True)
    yield replace(
        _packed("rank80-int8-qdq", ranker, requests, TableBits.all(8), energy=0.8, dense=True), exported=False
    )
    yield _packed("int4-qdq", ranker, requests, MIXED, dense=True)
    if len(ranker.shape.sources) * ranker.shape.candidates > ranker.shape.returned:
        kept = ranker.shape.returned
        yield _packed("short-int8", ranker, requests, TableBits.all(8), kept=kept)
        yield _packed("short-int8-qdq", ranker, requests, TableBits.all(8), dense=True, kept=kept)
        yield _packed("short-rank-int8-qdq", ranker, requests, TableBits.all(8), energy=0.9, dense=True, kept=kept)
    if not examples or NetworkMember not in map(type, ranker.correction.members) or float(ranker.strength) == 0:
        return
    gentle = replace_rate(settings)
    rounded = copy.deepcopy(ranker)
    network = next(one for one in rounded.correction.members if isinstance(one, NetworkMember)).network
    scales = input_scales(network, lambda: run_all(rounded, requests))
    train_rounded(rounded, examples, gentle, scales, epochs=FINE_TUNE_EPOCHS, seed=seed)
    yield _packed("qat-int8-qdq", rounded, requests, TableBits.all(8), dense=True)
    pruned, left = prune_to(ranker, examples, SMALL, gentle, epochs=FINE_TUNE_EPOCHS, seed=seed)
    yield Variant("pruned", pruned, 0.0, left, exported=False)
    yield _packed("pruned-int4-qdq", pruned, requests, MIXED, dense=True)
    yield from _students(ranker, examples, settings, seed)


def replace_rate(settings: RankerSettings) -> RankerSettings:
    """Settings of fine-tuning: a third of the rate that training starts with."""
    return settings.model_copy(update={"learning_rate": settings.learning_rate / 3})


def _packed(
    name: str,
    ranker: Ranker,
    requests: list[tuple[Tensor, ...]],
    bits: TableBits,
    energy: float = 1.0,
    *,
    dense: bool = False,
    kept: int = 0,
) -> Variant:
    started = time.perf_counter()
    model, unchanged = fold(ranker, bits, energy, kept=kept)
    for member in model.members if dense else ():
        if isinstance(member, CompactNetwork) and linear_layers(member.network):
            unchanged += quantize_layers(member.network, input_scales(member.network, lambda: run_all(model, requests)))
    return Variant(name, model, time.perf_counter() - started, unchanged)


def _students(ranker: Ranker, examples: Sequence[Examples], settings: RankerSettings, seed: int) -> Iterator[Variant]:
    """A teacher of several members, and the same small student taught by it and taught alone."""
    started = time.perf_counter()
    shape = replace(ranker.shape, members=TEACHER, trees=TEACHER_TREES, tree_depth=TEACHER_DEPTH)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        teacher = Ranker(shape, ranker.tables).eval()
    for name in ("blend", "value_weight", "strength"):
        getattr(teacher, name).copy_(getattr(ranker, name))
    chosen = settings.model_copy(update={"members": TEACHER, "trees": TEACHER_TREES, "tree_depth": TEACHER_DEPTH})
    train_members(teacher, examples, chosen, epochs=STUDENT_EPOCHS, seed=seed)
    yield Variant("teacher", teacher, time.perf_counter() - started, exported=False)
    lessons = {
        "student alone": Lesson(teacher=0.0, hint=0.0),
        "student distilled": Lesson(teacher=0.5, hint=0.0),
        "student distilled, hint": Lesson(teacher=0.5, hint=0.1),
    }
    for name, lesson in lessons.items():
        started = time.perf_counter()
        student = new_student(teacher, SMALL.hidden, SMALL.cross_layers, seed)
        distil(student, teacher, examples, settings, lesson, epochs=STUDENT_EPOCHS, seed=seed)
        yield Variant(name, student, time.perf_counter() - started, exported=False)

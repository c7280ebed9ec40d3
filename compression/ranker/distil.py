"""Knowledge distillation: a small network learns the order of a larger ranker's list beside what came true."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compression.ranker.dense import RoundedLinear, linear_layers, replace_layer
from core.sections import RankerSettings
from core.tensors import MASKED
from training.models.ranker import Ranker
from training.models.ranker_members import NetworkMember
from training.ranking.examples import Batch, Examples
from training.ranking.scoring import by_base, listwise_loss
from training.ranking.training import train_network

HINT_CANDIDATES = 64
"""Candidates per user whose hidden vectors are compared: pairs grow with the square."""


@dataclass(frozen=True)
class Lesson:
    """What the student is taught.

    Attributes:
        teacher: Its say against that of what came true, from 0 (learn alone) to 1.
        hint: Weight of the hint loss.
        temperature: Of both lists' softmax; above 1 the lower places count more.
    """

    teacher: float = 0.5
    hint: float = 0.1
    temperature: float = 1.0


def new_student(teacher: Ranker, hidden: tuple[int, ...], cross_layers: int, seed: int) -> Ranker:
    """An untaught ranker of one small network over the teacher's tables, blend and value weight."""
    shape = replace(
        teacher.shape, members=("network",), hidden=hidden, cross_layers=cross_layers, trees=0, tree_depth=0
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        student = Ranker(shape, teacher.tables)
    student.blend.copy_(teacher.blend)
    student.value_weight.copy_(teacher.value_weight)
    student.strength.copy_(teacher.strength)
    student.correction.shares.fill_(1.0)
    return student.eval()


def distil(
    student: Ranker,
    teacher: Ranker,
    examples: Sequence[Examples],
    settings: RankerSettings,
    lesson: Lesson,
    *,
    epochs: int,
    seed: int,
) -> None:
    """Trains the student's network in place.

    The ranking-distillation loss is the cross-entropy of the student's list against the teacher's softmax over all
    candidates (ListNet; Tang and Wang 2018, arXiv 1809.07428, take its top places). The hint asks that candidates whose
    hidden vectors are alike in the teacher be alike in the student (Tung and Mori 2019, arXiv 1907.09682): no
    projection is needed between their widths.

    Args:
        student: See :func:`new_student`.
        teacher: Trained; all its members speak.
        examples: Users of label windows.
        settings: Rates and batch size.
        lesson: Weights of the losses.
        epochs: Passes.
        seed: Of order and dropout.
    """
    base, own = by_base(teacher), _Hidden(student)
    theirs = _Hidden(teacher) if any(isinstance(one, NetworkMember) for one in teacher.correction.members) else None

    def loss_of(scores: Tensor, batch: Batch) -> Tensor:
        with torch.no_grad():
            wanted = base(batch) + teacher.correction(batch.candidates)
        loss = (1 - lesson.teacher) * listwise_loss(scores, batch)
        loss = loss + lesson.teacher * list_loss(scores, wanted, batch.valid, lesson.temperature)
        if lesson.hint and theirs is not None:
            loss = loss + lesson.hint * hint_loss(own.values(), theirs.values(), batch.valid)
        return loss

    try:
        generator = torch.Generator().manual_seed(seed)
        train_network(student, examples, settings, epochs=epochs, generator=generator, loss_of=loss_of)
    finally:
        own.close()
        if theirs is not None:
            theirs.close()


def list_loss(scores: Tensor, wanted: Tensor, valid: Tensor, temperature: float) -> Tensor:
    """Cross-entropy ``()`` of each user's softmax against the teacher's, over valid candidates, mean over users."""
    masked = torch.full_like(scores, MASKED)
    target = torch.softmax(torch.where(valid, wanted / temperature, masked), 1)
    return -(torch.log_softmax(torch.where(valid, scores / temperature, masked), 1) * target).sum(1).mean()


def hint_loss(own: Tensor, theirs: Tensor, valid: Tensor) -> Tensor:
    """Mean squared difference ``()`` of the cosines between candidates' hidden vectors ``(B, C, H)`` of both."""
    count = min(HINT_CANDIDATES, own.shape[1])
    pairs = (valid[:, :count].unsqueeze(2) & valid[:, :count].unsqueeze(1)).to(own.dtype)
    difference = _cosines(own[:, :count]) - _cosines(theirs[:, :count].detach())
    return (difference.square() * pairs).sum() / pairs.sum().clamp(min=1)


def train_rounded(
    ranker: Ranker,
    examples: Sequence[Examples],
    settings: RankerSettings,
    scales: dict[str, float],
    *,
    epochs: int,
    seed: int,
) -> None:
    """Quantization-aware fine-tuning in place: the first network learns with weights and inputs rounded to int8.

    Args:
        ranker: Trained.
        examples: Users of label windows.
        settings: Rates and batch size.
        scales: Of the inputs of each linear layer of the network, see ``input_scales``.
        epochs: Passes.
        seed: Of order and dropout.
    """
    network = _network(ranker).network
    plain = linear_layers(network)
    for name, layer in plain:
        replace_layer(network, name, RoundedLinear(layer, scales[name]))
    try:
        train_network(ranker, examples, settings, epochs=epochs, generator=torch.Generator().manual_seed(seed))
    finally:
        for name, layer in plain:
            replace_layer(network, name, layer)


class _Hidden:
    """The newest output of a ranker's deep layers."""

    def __init__(self, ranker: Ranker) -> None:
        self._found: Tensor | None = None
        self._handle = _network(ranker).network.deep.register_forward_hook(self._keep)

    def values(self) -> Tensor:
        """``(B, C, H)``."""
        assert self._found is not None
        return self._found

    def close(self) -> None:
        """Looks no longer."""
        self._handle.remove()

    def _keep(self, _: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> None:
        self._found = output


def _network(ranker: Ranker) -> NetworkMember:
    return next(one for one in ranker.correction.members if isinstance(one, NetworkMember))


def _cosines(hidden: Tensor) -> Tensor:
    unit = F.normalize(hidden, dim=-1)
    return unit @ unit.transpose(1, 2)

"""Fits the network's weights on examples; the base underneath stays fixed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from core.errors import TrainingError
from core.progress import SILENT, Progress
from core.sections import RankerSettings
from training.distributed.dropout import BatchMasks, over_whole_batches
from training.distributed.sharing import UNSHARED, Sharing
from training.distributed.updates import Updates, record_first_steps, shares_of
from training.loop import check_finite
from training.models.ranker import Ranker
from training.models.ranker_members import LinearMember, NetworkMember, Standardiser
from training.ranking.examples import Batch, Examples
from training.ranking.scoring import by_base, listwise_loss
from training.state import TrainingState

LONGEST_GRADIENT = 1.0
SMALLEST_SCALE = 1e-3
LINEAR_STEPS, LINEAR_RIDGE = 60, 0.03


def train_network(
    ranker: Ranker,
    examples: Sequence[Examples],
    settings: RankerSettings,
    *,
    epochs: int,
    generator: torch.Generator,
    member: int = 0,
    progress: Progress = SILENT,
    after_epoch: Callable[[int], None] = lambda epoch: None,
    loss_of: Callable[[Tensor, Batch], Tensor] = listwise_loss,
    sharing: Sharing = UNSHARED,
) -> None:
    """Trains in place with AdamW and a cosine schedule; every user weighs the same.

    Args:
        ranker: Its base scores are the fixed start that the network corrects.
        examples: Users of one or more windows.
        settings: Rates and batch size.
        epochs: Passes over all users.
        generator: Order of users and dropout.
        member: Which of its members, a network; it learns as if it were alone.
        progress: Where the bar goes.
        after_epoch: Called with the epoch's number from 1, the model in evaluation mode.
        loss_of: Mean over users, of scores ``(B, C)`` and their batch.
        sharing: Each worker takes its share of the users of every step; ``after_epoch`` is called on all.

    Raises:
        TrainingError: The loss is not finite, or no candidate of any user came true.
    """
    network, group, checkpoints = _network(ranker, member), sharing.group, sharing.checkpoints
    batches, base = with_hits(examples), by_base(ranker)
    fit_scale(network.standard, batches)
    optimizer = torch.optim.AdamW(
        (weight for weight in network.parameters() if weight.requires_grad),
        lr=settings.learning_rate,
        weight_decay=settings.weight_decay,
    )
    steps = sum(math.ceil(len(batch.rows) / settings.batch_users) for batch in batches)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=max(1, steps * epochs))
    seed = int(torch.randint(2**31, (), generator=generator))
    curve = f"ranker loss {member}" if member else "ranker loss"
    generators = {"order": generator, "dropout": torch.default_generator}
    state = TrainingState(network, optimizer, schedule, generators, curve)
    accumulate = sharing.train.accumulate
    masks = BatchMasks() if group.count * accumulate > 1 else None
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=[]))
        torch.manual_seed(seed)  # dropout has no generator argument
        if masks is not None:
            stack.enter_context(over_whole_batches(network, masks))
        first = state.restore(checkpoints, progress, group) if checkpoints is not None else 1
        objective = _Objective(network, loss_of, masks)
        updates = Updates(objective, optimizer, group, sharing.train, LONGEST_GRADIENT)
        bar = stack.enter_context(progress.bar("ranker", steps * epochs))
        for epoch in range(first, epochs + 1):
            network.train()
            total, done = 0.0, 0
            for batch, users in _steps(batches, settings.batch_users, generator):
                places = shares_of(len(users), group, accumulate)
                parts = [_part(batch, users, own, at, base) for at, own in enumerate(places)]
                loss = updates.step([(part,) for part in parts])
                if not math.isfinite(loss):
                    raise TrainingError(
                        "the ranker's loss is not finite",
                        where=f"epoch {epoch}",
                        found=str(loss),
                        next_step="lower ranker.learning_rate",
                    )
                schedule.step()
                total, done = total + loss, done + 1
                record_first_steps(progress, "ranker", (epoch - 1) * steps + done, loss)
                bar.advance(1, f"loss {loss:.4f}")
            updates.settle()
            mean = updates.mean(total) / done
            progress.record(curve, epoch, mean)
            network.eval()
            after_epoch(epoch)
            if checkpoints is not None and group.is_first:
                state.save(checkpoints, epoch, mean)
    network.eval()


@dataclass(frozen=True)
class _Part:
    """A share of a step's users.

    Attributes:
        batch: Theirs.
        base: ``(B, C)``, what the network corrects.
        weight: Their share of the step's users.
        size: The step's users.
        places: int64, which of them these are.
        number: From 0 within the worker's share.
    """

    batch: Batch
    base: Tensor
    weight: float
    size: int
    places: np.ndarray
    number: int


def _part(batch: Batch, users: Tensor, places: np.ndarray, number: int, base: Callable[[Batch], Tensor]) -> _Part:
    """The users at ``places`` of a step; where there are none, its first one with weight 0."""
    weight = len(places) / len(users)
    if len(places) == 0:
        places = np.zeros(1, np.int64)
    own = batch.select(users[torch.from_numpy(places)])
    return _Part(own, base(own), weight, len(users), places, number)


class _Objective(nn.Module):
    """The loss of a part of a step's users, as its share of the loss of all."""

    def __init__(
        self, network: NetworkMember, loss_of: Callable[[Tensor, Batch], Tensor], masks: BatchMasks | None
    ) -> None:
        super().__init__()
        self.network = network
        self._loss_of = loss_of
        self._masks = masks

    def forward(self, part: _Part) -> tuple[Tensor, Tensor]:
        if self._masks is not None:
            self._masks.point_at(part.size, part.places, part.number)
        loss = self._loss_of(part.base + self.network(part.batch.candidates), part.batch)
        return loss * part.weight, torch.zeros(())


def _network(ranker: Ranker, member: int) -> NetworkMember:
    return cast(NetworkMember, ranker.correction.members[member])


def train_linear(ranker: Ranker, examples: Sequence[Examples], *, member: int) -> None:
    """Fits a linear member in place by L-BFGS on the listwise loss with a ridge; arguments as in ``train_network``."""
    linear = cast(LinearMember, ranker.correction.members[member])
    batches, base = with_hits(examples), by_base(ranker)
    fit_scale(linear.standard, batches)
    users = sum(len(batch.rows) for batch in batches)
    optimizer = torch.optim.LBFGS([linear.weight], max_iter=LINEAR_STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        total = LINEAR_RIDGE * linear.weight.square().sum()
        for batch in batches:
            of_batch = listwise_loss(base(batch) + linear(batch.candidates), batch)
            total = total + of_batch * len(batch.rows) / users
        total.backward()
        return total

    optimizer.step(loss)
    check_finite(float(linear.weight.detach().sum()), "linear ranker", 1, "check the item attributes and values")


def fit_scale(standard: Standardiser, batches: Sequence[Batch]) -> None:
    """Stores mean and deviation of each feature over all valid candidates; constant features keep scale 1."""
    total = torch.zeros(len(standard.mean), dtype=torch.float64)
    squares, count = torch.zeros_like(total), 0
    for batch in batches:
        features = batch.features[batch.valid].double()
        total += features.sum(0)
        squares += (features * features).sum(0)
        count += len(features)
    mean = total / max(count, 1)
    deviation = (squares / max(count, 1) - mean * mean).clamp(min=0).sqrt()
    standard.mean.copy_(mean)
    standard.scale.copy_(torch.where(deviation > SMALLEST_SCALE, deviation, torch.ones_like(deviation)))


def with_hits(examples: Sequence[Examples]) -> list[Batch]:
    """The users who have a hit among their candidates: the others teach nothing.

    Raises:
        TrainingError: There are none.
    """
    batches = [taught for part in examples for batch in part.batches if (taught := _with_hits(batch)) is not None]
    if not batches:
        raise TrainingError(
            "the ranker has nothing to learn from",
            expected="users whose later events are among their recall candidates",
            found="none",
            next_step="train on more events, or raise recall.candidates",
        )
    return batches


def _with_hits(batch: Batch) -> Batch | None:
    index = torch.nonzero(batch.labels.sum(1) > 0).squeeze(1)
    return batch.select(index) if len(index) else None


def _steps(batches: Sequence[Batch], size: int, generator: torch.Generator) -> Iterator[tuple[Batch, Tensor]]:
    """Random steps, each some users of a batch: shuffled within their padded length, steps over all lengths."""
    plan: list[tuple[int, Tensor]] = []
    for number, batch in enumerate(batches):
        order = torch.randperm(len(batch.rows), generator=generator)
        plan += [(number, part) for part in order.split(size)]
    for place in torch.randperm(len(plan), generator=generator).tolist():
        number, part = plan[place]
        yield batches[number], part

"""Fits the network's weights on examples; the base underneath stays fixed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import cast

import torch
from torch import Tensor

from core.errors import TrainingError
from core.progress import SILENT, Progress
from core.sections import RankerSettings
from training.loop import check_finite
from training.models.ranker import Ranker
from training.models.ranker_members import LinearMember, NetworkMember, Standardiser
from training.ranking.examples import Batch, Examples
from training.ranking.scoring import by_base, listwise_loss

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
        loss_of: Of scores ``(B, C)`` and their batch.

    Raises:
        TrainingError: The loss is not finite, or no candidate of any user came true.
    """
    network = cast(NetworkMember, ranker.correction.members[member])
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
    with torch.random.fork_rng(devices=[]), progress.bar("ranker", steps * epochs) as bar:
        torch.manual_seed(seed)  # dropout has no generator argument
        for epoch in range(1, epochs + 1):
            network.train()
            total, done = 0.0, 0
            for batch in _steps(batches, settings.batch_users, generator):
                optimizer.zero_grad()
                loss = loss_of(base(batch) + network(batch.candidates), batch)
                if not torch.isfinite(loss):
                    raise TrainingError(
                        "the ranker's loss is not finite",
                        where=f"epoch {epoch}",
                        found=str(loss.item()),
                        next_step="lower ranker.learning_rate",
                    )
                loss.backward()
                torch.nn.utils.clip_grad_norm_(network.parameters(), LONGEST_GRADIENT)
                optimizer.step()
                schedule.step()
                total, done = total + loss.item(), done + 1
                bar.advance(1, f"loss {loss.item():.4f}")
            progress.record(f"ranker loss {member}" if member else "ranker loss", epoch, total / done)
            network.eval()
            after_epoch(epoch)
    network.eval()


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


def _steps(batches: Sequence[Batch], size: int, generator: torch.Generator) -> Iterator[Batch]:
    """Random steps: users shuffled within their padded length, steps shuffled over all lengths."""
    plan: list[tuple[int, Tensor]] = []
    for number, batch in enumerate(batches):
        order = torch.randperm(len(batch.rows), generator=generator)
        plan += [(number, part) for part in order.split(size)]
    for place in torch.randperm(len(plan), generator=generator).tolist():
        number, part = plan[place]
        yield batches[number].select(part)

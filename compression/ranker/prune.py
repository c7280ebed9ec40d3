"""Structured pruning: whole neurons and cross layers go, the least needed first, with fine-tuning in between.

Only whole structures make a dense graph smaller or faster: neither ONNX Runtime nor TensorRT has a kernel for scattered
zeros in layers of this size.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from compression.candidate import Unchanged
from compression.ranker.fold import check_finite
from core.errors import CompressionError
from core.sections import RankerSettings
from training.models.ranker import Ranker
from training.models.ranker_members import NetworkMember
from training.ranking.examples import Examples
from training.ranking.scoring import by_base, listwise_loss
from training.ranking.training import train_network, with_hits

SMALLEST_WIDTH = 4
STEP = 0.7
"""Share of the neurons that a round keeps: gentler rounds than one cut let the rest take over."""


@dataclass(frozen=True)
class Target:
    """Sizes to prune to.

    Attributes:
        hidden: Widths of the deep layers.
        cross_layers: Cross layers.
    """

    hidden: tuple[int, ...]
    cross_layers: int


@dataclass(frozen=True)
class Sensitivity:
    """How much the loss minds a structure, to first order (Molchanov et al. 2017, arXiv 1611.06440, eq. 8).

    Attributes:
        neurons: Per deep layer ``(width,)``.
        cross: Per cross layer.
    """

    neurons: tuple[Tensor, ...]
    cross: tuple[float, ...]


def prune_to(
    ranker: Ranker,
    examples: Sequence[Examples],
    target: Target,
    settings: RankerSettings,
    *,
    epochs: int,
    seed: int,
    member: int = 0,
) -> tuple[Ranker, tuple[Unchanged, ...]]:
    """A ranker whose one network has ``target`` sizes, fine-tuned after every round; the original stays as it is.

    Args:
        ranker: With a single network among its members: its shape names one size of networks.
        examples: The ranker's own: users of label windows.
        target: No size above the ranker's.
        settings: Rates and batch size.
        epochs: Passes after each round.
        seed: Of the fine-tuning.
        member: Which member is the network.

    Raises:
        CompressionError: Larger sizes than there are, or several networks.
    """
    check_finite(ranker)
    _check(ranker, target)
    current, round_ = copy.deepcopy(ranker), 0
    while (current.shape.hidden, current.shape.cross_layers) != (target.hidden, target.cross_layers):
        found = sensitivity(current, examples, member)
        widths = tuple(
            max(wanted, int(width * STEP)) for width, wanted in zip(current.shape.hidden, target.hidden, strict=True)
        )
        layers = max(target.cross_layers, current.shape.cross_layers - 1)
        current = without_least(current, found, Target(widths, layers), member)
        generator = torch.Generator().manual_seed(seed + round_)
        train_network(current, examples, settings, epochs=epochs, generator=generator, member=member)
        round_ += 1
    reasons = [Unchanged(f"members.{member}.attention", "one head of scalars and 49 weights: nothing to take out")]
    return current.eval(), tuple(reasons)


def sensitivity(ranker: Ranker, examples: Sequence[Examples], member: int = 0) -> Sensitivity:
    """Mean magnitude of activation times gradient, over the candidates of users with a hit."""
    network = _network(ranker, member)
    deep = [layer for layer in network.network.deep if isinstance(layer, nn.ReLU)]
    kept: dict[int, Tensor] = {}

    def keep(place: int) -> object:
        def hook(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> None:
            output.retain_grad()
            kept[place] = output

        return hook

    layers = [*deep, *network.network.cross.layers]
    handles = [layer.register_forward_hook(keep(at)) for at, layer in enumerate(layers)]
    base, totals = by_base(ranker), [torch.zeros(()) for _ in layers]
    try:
        for batch in with_hits(examples):
            ranker.zero_grad()
            listwise_loss(base(batch) + network(batch.candidates), batch).backward()
            for at, output in kept.items():
                gradient = output.grad
                if gradient is not None:
                    totals[at] = totals[at] + (output.detach() * gradient).flatten(0, -2).sum(0).abs()
    finally:
        for handle in handles:
            handle.remove()
        ranker.zero_grad()
    return Sensitivity(tuple(totals[: len(deep)]), tuple(float(one.sum()) for one in totals[len(deep) :]))


def without_least(ranker: Ranker, found: Sensitivity, sizes: Target, member: int = 0) -> Ranker:
    """A copy of ``sizes`` that keeps the most sensitive neurons and cross layers, their weights unchanged."""
    source = _network(ranker, member).network
    shape = replace(ranker.shape, hidden=sizes.hidden, cross_layers=sizes.cross_layers)
    smaller = Ranker(shape, ranker.tables)
    state = {name: tensor for name, tensor in ranker.state_dict().items() if ".network." not in name}
    smaller.load_state_dict(state, strict=False)
    network = _network(smaller, member).network
    kept = [
        torch.sort(torch.topk(scores, width).indices).values
        for scores, width in zip(found.neurons, sizes.hidden, strict=True)
    ]
    with torch.no_grad():
        inputs = torch.arange(source.output.in_features - (ranker.shape.hidden or (0,))[-1])
        width = len(inputs)
        for old, new, rows in zip(_linear(source.deep), _linear(network.deep), kept, strict=True):
            new.weight.copy_(old.weight[rows][:, inputs])
            new.bias.copy_(old.bias[rows])
            inputs = rows
        network.output.weight.copy_(source.output.weight[:, torch.cat([torch.arange(width), width + inputs])])
        order = sorted(range(len(found.cross)), key=lambda at: -found.cross[at])[: sizes.cross_layers]
        for layer, at in zip(network.cross.layers, sorted(order), strict=True):
            layer.load_state_dict(source.cross.layers[at].state_dict())
    return smaller.eval()


def _check(ranker: Ranker, target: Target) -> None:
    networks = sum(isinstance(member, NetworkMember) for member in ranker.correction.members)
    shape = ranker.shape
    fits = len(target.hidden) == len(shape.hidden) and all(
        SMALLEST_WIDTH <= wanted <= width for wanted, width in zip(target.hidden, shape.hidden, strict=True)
    )
    if networks != 1 or not fits or not 0 <= target.cross_layers <= shape.cross_layers:
        raise CompressionError(
            "the ranker cannot be pruned as asked",
            where="members " + ", ".join(shape.members),
            expected=f"one network, widths {SMALLEST_WIDTH} to {shape.hidden}, cross layers <= {shape.cross_layers}",
            found=f"{networks} networks, widths {target.hidden}, {target.cross_layers} cross layers",
        )


def _network(ranker: Ranker, member: int) -> NetworkMember:
    found = ranker.correction.members[member]
    assert isinstance(found, NetworkMember)
    return found


def _linear(layers: nn.Module) -> list[nn.Linear]:
    return [layer for layer in layers.modules() if isinstance(layer, nn.Linear)]

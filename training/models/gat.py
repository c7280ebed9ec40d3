"""Training of the graph attention recall."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from core.dataset import Dataset, Events, histories_of
from core.histories import Histories
from core.progress import SILENT, Progress
from core.sections import GatSettings
from core.settings import Settings
from core.tensors import MASKED
from training.checkpoints import Checkpoints
from training.continuation import Continuation, only
from training.distributed.group import ALONE, Group
from training.distributed.updates import Updates, record_first_steps, shares_of
from training.loop import check_finite, check_not_empty, cosine
from training.models.gat_continue import go_on_from
from training.models.gat_examples import ExampleSource
from training.models.gat_kinds import GatKinds
from training.models.gat_model import GatRecall
from training.models.gat_network import GatNetwork, TensorBatch, served_form, start_network
from training.models.recall_base import AfterEpoch, recent_popularity
from training.state import TrainingState

ADVICE = "lower gat.table_rate and gat.scalar_rate, or raise gat.stay_close"


def fit_gat(
    dataset: Dataset,
    events: Events,
    settings: Settings,
    *,
    seed: int,
    progress: Progress = SILENT,
    after_epoch: AfterEpoch | None = None,
    continuation: Continuation | None = None,
    group: Group = ALONE,
) -> GatRecall:
    """Trains the graph attention recall on ``events``.

    Args:
        dataset: Gives the numbers of users and items, the kinds of events, and whether there are times.
        events: What to learn from, each (user, item) pair once.
        settings: The sections ``events``, ``gat``, ``recall`` and ``train``.
        seed: Decides cuts, dropped events and samples, and with them everything.
        progress: One step per epoch, with its mean loss.
        after_epoch: Called after each epoch, see ``AfterEpoch``; may raise to end a training that is not worth it.
        continuation: Start from an earlier network, learn from some users only; ``gat.bag`` 1 only. Keep checkpoints.
        group: Each worker takes its share of the examples of every step; all have the whole graph.

    Raises:
        SettingsError: A kind of events that the data does not have; heads that do not divide the dimension.
        TrainingError: No events, none of ``events.target_kinds``, or a loss that is not finite.
    """
    check_not_empty(events, "gat")
    chosen, device = settings.gat, settings.train.device
    kinds = GatKinds.of(dataset, events, settings.events)
    has_times = dataset.has_times and chosen.use_times
    histories = visible(histories_of(events, dataset.n_users), chosen)
    counts = np.bincount(histories.item_rows, minlength=dataset.n_items)
    recent = recent_popularity(events, dataset.n_items, settings.recall.popularity_half_life_days)
    networks: list[GatNetwork] = []
    making = partial(served_form, networks, recent, settings.recall.candidates)
    for member in range(chosen.bag):
        own_seed = seed if chosen.bag == 1 else [seed, member]
        own = continuation if chosen.bag == 1 else None
        checkpoints = continuation.checkpoints if continuation is not None else None
        if checkpoints is not None and chosen.bag > 1:
            checkpoints = checkpoints.part(f"network-{member}")
        learners = own.learners if own is not None else None
        taught = histories if learners is None else only(histories, learners)
        source = ExampleSource(taught, chosen, has_times, kinds.target_weights)
        popularity = source.popularity(dataset.n_items)
        making_start = partial(start_network, histories, popularity, chosen, own_seed, kinds.edge_weights)
        networks.append(group.agree(making_start).to(device))
        if own is not None and own.start is not None and own.old_rows is not None:
            go_on_from(networks[-1], own.start, own.old_rows)
        networks[-1].scalars.freeze(times=not has_times, values=not (dataset.has_values and chosen.use_values))

        def look(share: float, done: int = member) -> None:
            if after_epoch:
                after_epoch((done + share) / chosen.bag, making)

        is_new = own is None or own.start is None
        _train(networks[-1], source, settings, counts, own_seed, progress, look, is_new, checkpoints, group)
        if own is not None:
            weights = networks[-1].state_dict()
            own.kept.update({name: value.detach().contiguous().clone() for name, value in weights.items()})
        networks[-1].scalars.fill_unknown_kind(histories.kinds)
    return making()


def visible(histories: Histories, settings: GatSettings) -> Histories:
    """What the settings let the model see: times and values that do not count are 0 throughout."""
    times, values = histories.timestamps, histories.values
    return replace(
        histories,
        timestamps=times if settings.use_times else np.zeros_like(times),
        values=values if settings.use_values else np.zeros_like(values),
    )


def batch_loss(
    network: GatNetwork,
    batch: TensorBatch,
    samples: torch.Tensor | None,
    log_q: torch.Tensor,
    total: torch.Tensor | None = None,
) -> torch.Tensor:
    """Mean over examples of the weighted mean over targets of ``-log softmax``, history items left out.

    Args:
        network: The network.
        batch: Examples.
        samples: Item rows int64 ``(S,)`` drawn with probability ``exp(log_q)`` to estimate the normaliser by
            (Bengio and Senécal 2008); None takes the whole catalogue.
        log_q: float32 ``(I,)``.
        total: Weight of all examples of a step of which ``batch`` is a share; that of ``batch`` when None.
    """
    total = batch.weights.sum() if total is None else total
    history_vectors, target_vectors = network.propagated()
    users = network.user_vectors(history_vectors, batch)  # (B, D)
    targets = (users[batch.target_users] * target_vectors[batch.target_items]).sum(1)
    targets = targets + network.item_bias[batch.target_items]  # (T,)
    if samples is None:
        logits = users @ target_vectors.T + network.item_bias  # (B, I)
        logits = logits.index_put((batch.masked_users, batch.masked_items), logits.new_tensor(MASKED))
        losses = torch.logsumexp(logits, dim=1)[batch.target_users] - targets
    else:
        logits = users @ target_vectors[samples].T + network.item_bias[samples]  # (B, S)
        logits = logits - log_q[samples] - math.log(len(samples))
        seen = torch.zeros(len(users), len(target_vectors), dtype=torch.bool, device=users.device)
        seen[batch.masked_users, batch.masked_items] = True
        others = torch.logsumexp(logits.masked_fill(seen[:, samples], MASKED), dim=1)
        losses = F.softplus(others[batch.target_users] - targets)
    totals = torch.bincount(batch.target_users, batch.target_weights, minlength=len(users))
    shares = batch.target_weights / totals[batch.target_users]
    return (losses * batch.weights[batch.target_users] * shares).sum() / torch.clamp(total, min=1e-30)


class _Objective(nn.Module):
    """What a step lowers: the loss, and how far the items' parameters have moved from their start."""

    def __init__(self, network: GatNetwork, log_q: torch.Tensor, stay_close: float) -> None:
        super().__init__()
        self.network = network
        self._log_q = log_q
        self._stay_close = stay_close

    def forward(
        self, batch: TensorBatch, samples: torch.Tensor | None, total: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        loss = batch_loss(self.network, batch, samples, self._log_q, total)
        return loss, self._stay_close * self.network.drift()


def _train(
    network: GatNetwork,
    source: ExampleSource,
    settings: Settings,
    counts: np.ndarray,
    seed: int | list[int],
    progress: Progress,
    look: Callable[[float], None],
    is_new: bool,
    checkpoints: Checkpoints | None,
    group: Group,
) -> None:
    chosen, device = settings.gat, settings.train.device
    cut_rng, drop_rng, sample_rng = (np.random.default_rng([*np.ravel(seed), stream]) for stream in (2, 3, 4))
    sampling = counts**chosen.sample_power / (counts**chosen.sample_power).sum()
    log_q = torch.from_numpy(np.log(np.maximum(sampling, 1e-30)).astype(np.float32)).to(device)
    tables = [network.history_table, network.target_table]
    others = [
        parameter
        for parameter in network.parameters()
        if parameter.requires_grad and all(parameter is not table for table in tables)
    ]
    optimizer = torch.optim.Adam(
        [{"params": tables, "lr": chosen.table_rate}, {"params": others, "lr": chosen.scalar_rate}]
    )
    first_cuts = source.draw(cut_rng)
    if is_new:
        _calibrate(network, TensorBatch.of(next(source.batches(first_cuts, drop_rng)), device))
    per_epoch = math.ceil(len(first_cuts) / chosen.batch_users)
    steps = per_epoch * chosen.epochs
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda done: cosine(done, steps))
    generators = {"cuts": cut_rng, "drops": drop_rng, "samples": sample_rng}
    state = TrainingState(network, optimizer, schedule, generators, "gat loss")
    first = state.restore(checkpoints, progress, group) if checkpoints is not None else 1
    updates = Updates(_Objective(network, log_q, chosen.stay_close), optimizer, group, settings.train)
    step = (first - 1) * per_epoch
    with progress.bar("gat", chosen.epochs) as bar:
        for epoch in range(first, chosen.epochs + 1):
            losses = 0.0
            network.refresh_similarity()
            for examples in source.batches(source.draw(cut_rng), drop_rng):
                samples = None
                if len(counts) > chosen.full_softmax_items:
                    samples = torch.from_numpy(sample_rng.choice(len(counts), chosen.samples, p=sampling)).to(device)
                total = torch.from_numpy(examples.weights).to(device).sum()
                places = shares_of(len(examples.weights), group, settings.train.accumulate)
                parts = [TensorBatch.of(examples.select(own), device) for own in places]
                loss = updates.step([(part, samples, total) for part in parts])
                schedule.step()
                step += 1
                losses += check_finite(loss, "gat", step, ADVICE)
                record_first_steps(progress, "gat", step, loss)
            updates.settle()
            losses = updates.mean(losses)
            progress.record("gat loss", epoch, losses / per_epoch)
            bar.advance(note=f"loss {losses / per_epoch:.4f}")
            if checkpoints is not None and group.is_first:
                state.save(checkpoints, epoch, losses / per_epoch)
            look(epoch / chosen.epochs)


def _calibrate(network: GatNetwork, batch: TensorBatch) -> None:
    """Sets the gain so that scores spread by about 1 over the catalogue before training."""
    with torch.no_grad():
        history_vectors, target_vectors = network.propagated()
        scores = network.user_vectors(history_vectors, batch) @ target_vectors.T
        spread = float(scores.std(dim=1).mean())
        if spread > 0:
            network.length_scale[0] = -math.log(spread)

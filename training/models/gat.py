"""Training of the graph attention recall."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
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
from training.loop import check_finite, check_not_empty, cosine
from training.models.gat_examples import ExampleBatch, ExampleSource
from training.models.gat_layers import EdgeScalars, HistoryAttention, ItemAttention
from training.models.gat_model import GatRecall, length_factor
from training.models.item_graph import ItemGraph, SpectralTables, nearest_items, normalised_adjacency, spectral_tables
from training.models.recall_base import UNSEEN, AfterEpoch, popularity_bias, recent_popularity, without_ties

ADVICE = "lower gat.table_rate and gat.scalar_rate, or raise gat.stay_close"


class GatNetwork(nn.Module):
    """The trained form: two item tables, propagation over the item graph, attention over the history.

    Args:
        tables: Start values, also what the tables are held close to.
        graph: Item graph.
        bias: float32 ``(I,)``, start value of the item bias.
        power: Start value of the length's power.
    """

    history_start: torch.Tensor
    target_start: torch.Tensor
    bias_start: torch.Tensor

    def __init__(self, tables: SpectralTables, graph: ItemGraph, bias: np.ndarray, power: float = 0.5) -> None:
        super().__init__()
        self.history_table = nn.Parameter(torch.from_numpy(tables.history.copy()))
        self.target_table = nn.Parameter(torch.from_numpy(tables.target.copy()))
        self.item_bias = nn.Parameter(torch.from_numpy(bias.copy()))
        self.scalars = EdgeScalars(len(bias))
        self.items = ItemAttention(
            torch.from_numpy(np.stack([graph.sources, graph.targets])), torch.from_numpy(graph.log_weights), len(bias)
        )
        self.users = HistoryAttention()
        self.length_scale = nn.Parameter(torch.tensor([0.0, power]))
        self.register_buffer("history_start", torch.from_numpy(tables.history))
        self.register_buffer("target_start", torch.from_numpy(tables.target))
        self.register_buffer("bias_start", torch.from_numpy(bias))

    def propagated(self) -> tuple[torch.Tensor, torch.Tensor]:
        """History and target vectors after the item graph, each ``(I, D)``."""
        history, target = self.items(self._tables()).chunk(2, dim=1)
        return history, target

    def refresh_similarity(self) -> None:
        """Lets the item attention look at the tables as they are now."""
        self.items.refresh_similarity(self._tables())

    def _tables(self) -> torch.Tensor:
        return torch.cat([self.history_table, self.target_table], dim=1)

    def user_vectors(self, history_vectors: torch.Tensor, batch: TensorBatch) -> torch.Tensor:
        """User vectors of a batch, ``(B, D)``."""
        logits = self.scalars(
            batch.edge_items, batch.edge_positions, batch.edge_ages, batch.edge_since_first, batch.edge_values
        )
        edges = torch.stack([batch.edge_items, batch.edge_users])
        mean = self.users(history_vectors, edges, logits, len(batch.weights))
        return length_factor(batch.lengths[:, None], self.length_scale) * mean

    def drift(self) -> torch.Tensor:
        """Mean squared distance of an item's parameters from their start, summed over the axes."""
        tables = (self.history_table - self.history_start).square() + (self.target_table - self.target_start).square()
        singles = (self.item_bias - self.bias_start).square() + self.scalars.item[:-1].square()
        return (tables.sum(1) + singles).mean()


@dataclass(frozen=True)
class TensorBatch:
    """:class:`ExampleBatch` as tensors on the training device; same fields."""

    weights: torch.Tensor
    lengths: torch.Tensor
    edge_users: torch.Tensor
    edge_items: torch.Tensor
    edge_positions: torch.Tensor
    edge_ages: torch.Tensor
    edge_since_first: torch.Tensor
    edge_values: torch.Tensor
    masked_users: torch.Tensor
    masked_items: torch.Tensor
    target_users: torch.Tensor
    target_items: torch.Tensor

    @classmethod
    def of(cls, batch: ExampleBatch, device: str) -> TensorBatch:
        return cls(**{name: torch.from_numpy(value).to(device) for name, value in vars(batch).items()})


def fit_gat(
    dataset: Dataset,
    events: Events,
    settings: Settings,
    *,
    seed: int,
    progress: Progress = SILENT,
    after_epoch: AfterEpoch | None = None,
) -> GatRecall:
    """Trains the graph attention recall on ``events``.

    Args:
        dataset: Gives the numbers of users and items, and whether there are times.
        events: What to learn from, each (user, item) pair once.
        settings: The sections ``gat``, ``recall`` and ``train``.
        seed: Decides cuts, dropped events and samples, and with them everything.
        progress: One step per epoch, with its mean loss.
        after_epoch: Called after each epoch, see ``AfterEpoch``; may raise to end a training that is not worth it.

    Raises:
        TrainingError: No events, or a loss that is not finite.
    """
    check_not_empty(events, "gat")
    histories = histories_of(events, dataset.n_users)
    counts = np.bincount(histories.item_rows, minlength=dataset.n_items)
    source = ExampleSource(histories, settings.gat, dataset.has_times)
    popularity = source.popularity(dataset.n_items)
    network = start_network(histories, popularity, settings.gat, seed).to(settings.train.device)
    recent = recent_popularity(events, dataset.n_items, settings.recall.popularity_half_life_days)
    making = partial(served_form, network, recent, settings.recall.candidates)
    look = (lambda share: after_epoch(share, making)) if after_epoch else lambda share: None
    _train(network, source, settings, counts, seed, progress, look)
    return making()


def start_network(histories: Histories, popularity: np.ndarray, settings: GatSettings, seed: int) -> GatNetwork:
    """The network before training: GF-CF's filter, attention uniform, bias by popularity.

    Args:
        histories: Training events.
        popularity: float ``(I,)``, see :meth:`ExampleSource.popularity`.
        settings: The section ``gat``.
        seed: Start of the spectral decomposition.
    """
    n_items = len(popularity)
    counts = np.bincount(histories.item_rows, minlength=n_items)
    adjacency = normalised_adjacency(histories, n_items)
    tables = spectral_tables(adjacency, counts, settings.dimension, np.random.default_rng([seed, 1]))
    scaled = SpectralTables(tables.history * settings.start_scale, tables.target * settings.start_scale)
    bias = popularity_bias(popularity, settings.popularity)[:-1]
    return GatNetwork(scaled, nearest_items(adjacency, settings.neighbours), bias)


def batch_loss(
    network: GatNetwork, batch: TensorBatch, samples: torch.Tensor | None, log_q: torch.Tensor
) -> torch.Tensor:
    """Mean over examples of the mean over targets of ``-log softmax``, history items left out.

    Args:
        network: The network.
        batch: Examples.
        samples: Item rows int64 ``(S,)`` drawn with probability ``exp(log_q)`` to estimate the normaliser by
            (Bengio and Senécal 2008); None takes the whole catalogue.
        log_q: float32 ``(I,)``.
    """
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
    per_target = torch.bincount(batch.target_users, minlength=len(users))[batch.target_users]
    return (losses * batch.weights[batch.target_users] / per_target).sum() / batch.weights.sum()


def served_form(network: GatNetwork, popularity: np.ndarray, candidates: int) -> GatRecall:
    """The module that is saved and exported: vectors propagated over the full graph, attention dense.

    Args:
        network: Trained.
        popularity: float ``(I,)``, orders empty histories; items with 0 were never seen and come last.
        candidates: K.
    """
    with torch.no_grad():
        network.refresh_similarity()
        history, target = (F.pad(table, (0, 0, 0, 1)).cpu() for table in network.propagated())
        empty_bias = popularity_bias(popularity, 1.0)
        bias, seen = empty_bias.copy(), popularity > 0
        learned = network.item_bias.detach().cpu().numpy()
        bias[:-1][seen] = without_ties(np.maximum(learned[seen], UNSEEN / 2))
        scalars = EdgeScalars(len(seen))
        scalars.load_state_dict({name: tensor.cpu() for name, tensor in network.scalars.state_dict().items()})
        return GatRecall(
            history,
            target,
            torch.from_numpy(bias),
            torch.from_numpy(empty_bias),
            scalars,
            network.length_scale.detach().cpu(),
            candidates=candidates,
        ).eval()


def _train(
    network: GatNetwork,
    source: ExampleSource,
    settings: Settings,
    counts: np.ndarray,
    seed: int,
    progress: Progress,
    look: Callable[[float], None],
) -> None:
    chosen, device = settings.gat, settings.train.device
    cut_rng, drop_rng, sample_rng = (np.random.default_rng([seed, stream]) for stream in (2, 3, 4))
    sampling = counts**chosen.sample_power / (counts**chosen.sample_power).sum()
    log_q = torch.from_numpy(np.log(np.maximum(sampling, 1e-30)).astype(np.float32)).to(device)
    tables = [network.history_table, network.target_table]
    others = [parameter for parameter in network.parameters() if all(parameter is not table for table in tables)]
    optimizer = torch.optim.Adam(
        [{"params": tables, "lr": chosen.table_rate}, {"params": others, "lr": chosen.scalar_rate}]
    )
    first_cuts = source.draw(cut_rng)
    _calibrate(network, TensorBatch.of(next(source.batches(first_cuts, drop_rng)), device))
    per_epoch = math.ceil(len(first_cuts) / chosen.batch_users)
    total, step = per_epoch * chosen.epochs, 0
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda done: cosine(done, total))
    with progress.bar("gat", chosen.epochs) as bar:
        for epoch in range(1, chosen.epochs + 1):
            losses = 0.0
            network.refresh_similarity()
            for examples in source.batches(source.draw(cut_rng), drop_rng):
                samples = None
                if len(counts) > chosen.full_softmax_items:
                    samples = torch.from_numpy(sample_rng.choice(len(counts), chosen.samples, p=sampling)).to(device)
                loss = batch_loss(network, TensorBatch.of(examples, device), samples, log_q)
                optimizer.zero_grad(set_to_none=True)
                (loss + chosen.stay_close * network.drift()).backward()
                optimizer.step()
                schedule.step()
                step += 1
                losses += check_finite(loss.item(), "gat", step, ADVICE)
            progress.record("gat loss", epoch, losses / per_epoch)
            bar.advance(note=f"loss {losses / per_epoch:.4f}")
            look(epoch / chosen.epochs)


def _calibrate(network: GatNetwork, batch: TensorBatch) -> None:
    """Sets the gain so that scores spread by about 1 over the catalogue before training."""
    with torch.no_grad():
        history_vectors, target_vectors = network.propagated()
        scores = network.user_vectors(history_vectors, batch) @ target_vectors.T
        spread = float(scores.std(dim=1).mean())
        if spread > 0:
            network.length_scale[0] = -math.log(spread)

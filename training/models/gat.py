"""Training of the graph attention recall."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from core.dataset import Dataset, Events, histories_of
from core.errors import SettingsError
from core.histories import Histories
from core.progress import SILENT, Progress
from core.sections import GatSettings
from core.settings import Settings
from core.tensors import MASKED
from training.loop import check_finite, check_not_empty, cosine
from training.models.gat_examples import ExampleBatch, ExampleSource
from training.models.gat_kinds import GatKinds
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
        kind_logits: float32 ``(kinds,)``, start value of the kinds' attention logits.
        heads: H; each attends with its own scalars and has its own D / H columns of the tables.
        power: Start value of the length's power.
    """

    history_start: torch.Tensor
    target_start: torch.Tensor
    bias_start: torch.Tensor

    def __init__(
        self,
        tables: SpectralTables,
        graph: ItemGraph,
        bias: np.ndarray,
        kind_logits: np.ndarray,
        heads: int = 1,
        power: float = 0.5,
    ) -> None:
        super().__init__()
        self.history_table = nn.Parameter(torch.from_numpy(tables.history.copy()))
        self.target_table = nn.Parameter(torch.from_numpy(tables.target.copy()))
        self.item_bias = nn.Parameter(torch.from_numpy(bias.copy()))
        self.scalars = EdgeScalars(len(bias), len(kind_logits), heads)
        self.scalars.kind.data += torch.from_numpy(kind_logits)[:, None]
        self.items = ItemAttention(
            torch.from_numpy(np.stack([graph.sources, graph.targets])),
            torch.from_numpy(graph.log_weights),
            len(bias),
            heads,
        )
        self.users = HistoryAttention()
        self.length_scale = nn.Parameter(torch.tensor([[0.0], [power]]).repeat(1, heads))
        self.register_buffer("history_start", torch.from_numpy(tables.history))
        self.register_buffer("target_start", torch.from_numpy(tables.target))
        self.register_buffer("bias_start", torch.from_numpy(bias))

    def propagated(self) -> tuple[torch.Tensor, torch.Tensor]:
        """History and target vectors after the item graph, each ``(I, D)``."""
        mixed = self.items(self._tables()).unflatten(1, (self.heads, -1))  # (I, H, 2 D / H)
        history, target = (part.flatten(1) for part in mixed.chunk(2, dim=2))
        return history, target

    def refresh_similarity(self) -> None:
        """Lets the item attention look at the tables as they are now."""
        self.items.refresh_similarity(self._tables())

    @property
    def heads(self) -> int:
        """H."""
        return self.length_scale.shape[1]

    def _tables(self) -> torch.Tensor:
        """Head by head the columns of both tables, ``(I, 2 D)``."""
        pair = [table.unflatten(1, (self.heads, -1)) for table in (self.history_table, self.target_table)]
        return torch.cat(pair, dim=2).flatten(1)

    def user_vectors(self, history_vectors: torch.Tensor, batch: TensorBatch) -> torch.Tensor:
        """User vectors of a batch, ``(B, D)``."""
        logits = self.scalars(
            batch.edge_items,
            batch.edge_positions,
            batch.edge_ages,
            batch.edge_since_first,
            batch.edge_values,
            batch.edge_kinds,
        )
        edges = torch.stack([batch.edge_items, batch.edge_users])
        mean = self.users(history_vectors, edges, logits, len(batch.weights))
        factors = length_factor(batch.lengths[:, None], self.length_scale)  # (B, H)
        return (factors.unsqueeze(2) * mean.unflatten(1, (self.heads, -1))).flatten(1)

    def drift(self) -> torch.Tensor:
        """Mean squared distance of an item's parameters from their start, summed over the axes."""
        tables = (self.history_table - self.history_start).square() + (self.target_table - self.target_start).square()
        singles = (self.item_bias - self.bias_start).square() + self.scalars.item[:-1].square().mean(1)
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
    edge_kinds: torch.Tensor
    masked_users: torch.Tensor
    masked_items: torch.Tensor
    target_users: torch.Tensor
    target_items: torch.Tensor
    target_weights: torch.Tensor

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
        dataset: Gives the numbers of users and items, the kinds of events, and whether there are times.
        events: What to learn from, each (user, item) pair once.
        settings: The sections ``events``, ``gat``, ``recall`` and ``train``.
        seed: Decides cuts, dropped events and samples, and with them everything.
        progress: One step per epoch, with its mean loss.
        after_epoch: Called after each epoch, see ``AfterEpoch``; may raise to end a training that is not worth it.

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
        source = ExampleSource(histories, chosen, has_times, kinds.target_weights)
        popularity = source.popularity(dataset.n_items)
        networks.append(start_network(histories, popularity, chosen, own_seed, kinds.edge_weights).to(device))
        networks[-1].scalars.freeze(times=not has_times, values=not (dataset.has_values and chosen.use_values))

        def look(share: float, done: int = member) -> None:
            if after_epoch:
                after_epoch((done + share) / chosen.bag, making)

        _train(networks[-1], source, settings, counts, own_seed, progress, look)
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


def start_network(
    histories: Histories,
    popularity: np.ndarray,
    settings: GatSettings,
    seed: int | list[int],
    kind_weights: np.ndarray | None = None,
) -> GatNetwork:
    """The network before training: GF-CF's filter, attention by kind alone, bias by popularity.

    Args:
        histories: Training events.
        popularity: float ``(I,)``, see :meth:`ExampleSource.popularity`.
        settings: The section ``gat``.
        seed: Start of the spectral decomposition.
        kind_weights: Weight of an edge by the code of its kind; all 1 when None.

    Raises:
        SettingsError: Heads that do not divide the dimension.
    """
    if settings.dimension % settings.heads:
        raise SettingsError(
            "heads share a vector equally",
            where="gat.heads, gat.dimension",
            expected="a dimension that the heads divide",
            found=f"{settings.heads} heads, dimension {settings.dimension}",
        )
    n_items = len(popularity)
    if kind_weights is None:
        kind_weights = np.ones(int(histories.kinds.max(initial=0)) + 1)
    mass = np.bincount(histories.item_rows, kind_weights[histories.kinds], minlength=n_items)
    adjacency = normalised_adjacency(histories, n_items, kind_weights)
    tables = spectral_tables(adjacency, mass, settings.dimension, np.random.default_rng([*np.ravel(seed), 1]))
    # dealt out like cards, so that every head gets strong and weak singular vectors alike
    dealt = np.arange(settings.dimension).reshape(-1, settings.heads).T.ravel()
    scaled = SpectralTables(*(table[:, dealt] * settings.start_scale for table in (tables.history, tables.target)))
    bias = popularity_bias(popularity, settings.popularity)[:-1]
    logits = np.log(kind_weights).astype(np.float32)
    return GatNetwork(scaled, nearest_items(adjacency, settings.neighbours), bias, logits, settings.heads)


def batch_loss(
    network: GatNetwork, batch: TensorBatch, samples: torch.Tensor | None, log_q: torch.Tensor
) -> torch.Tensor:
    """Mean over examples of the weighted mean over targets of ``-log softmax``, history items left out.

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
    totals = torch.bincount(batch.target_users, batch.target_weights, minlength=len(users))
    shares = batch.target_weights / totals[batch.target_users]
    return (losses * batch.weights[batch.target_users] * shares).sum() / torch.clamp(batch.weights.sum(), min=1e-30)


def served_form(networks: Sequence[GatNetwork], popularity: np.ndarray, candidates: int) -> GatRecall:
    """The module that is saved and exported: vectors propagated over the full graph, attention dense.

    Several networks become one: their heads stand side by side, and every score is the mean of theirs.

    Args:
        networks: Trained, of equal shape.
        popularity: float ``(I,)``, orders empty histories; items with 0 were never seen and come last.
        candidates: K.
    """
    with torch.no_grad():
        for network in networks:
            network.refresh_similarity()
        pairs = [network.propagated() for network in networks]
        history, target = (F.pad(torch.cat(tables, dim=1), (0, 0, 0, 1)).cpu() for tables in zip(*pairs, strict=True))
        empty_bias = popularity_bias(popularity, 1.0)
        bias, seen = empty_bias.copy(), popularity > 0
        learned = torch.stack([network.item_bias for network in networks]).mean(0).cpu().numpy()
        bias[:-1][seen] = without_ties(np.maximum(learned[seen], UNSEEN / 2))
        states = [network.scalars.state_dict() for network in networks]
        joined = {name: torch.cat([state[name] for state in states], dim=1).cpu() for name in states[0]}
        scalars = EdgeScalars(len(seen), *joined["kind"].shape)
        scalars.load_state_dict(joined)
        return GatRecall(
            history,
            target / len(networks),
            torch.from_numpy(bias),
            torch.from_numpy(empty_bias),
            scalars,
            torch.cat([network.length_scale for network in networks], dim=1).cpu(),
            candidates=candidates,
        ).eval()


def _train(
    network: GatNetwork,
    source: ExampleSource,
    settings: Settings,
    counts: np.ndarray,
    seed: int | list[int],
    progress: Progress,
    look: Callable[[float], None],
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

"""The graph model as it is trained, from its start to the form that is served."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from core.errors import SettingsError
from core.histories import Histories
from core.sections import GatSettings
from training.models.gat_examples import ExampleBatch
from training.models.gat_layers import EdgeScalars, HistoryAttention, ItemAttention
from training.models.gat_model import GatRecall, length_factor
from training.models.item_graph import ItemGraph, SpectralTables, nearest_items, normalised_adjacency, spectral_tables
from training.models.recall_base import UNSEEN, popularity_bias, without_ties


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
        with self._full_precision():
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
        with self._full_precision():
            return self._user_vectors(history_vectors, batch)

    def _user_vectors(self, history_vectors: torch.Tensor, batch: TensorBatch) -> torch.Tensor:
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

    def _full_precision(self) -> AbstractContextManager[Any]:
        """Sparse products take float32 only, and the logarithms of days lose their meaning in bfloat16."""
        return torch.autocast(self.history_table.device.type, enabled=False)

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

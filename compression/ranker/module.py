"""The ranker as it is compressed: every item's numbers in three packed tables, each looked up once.

Without any loss: attribute embeddings and the projections of the rating model's directions are stored by item instead
of what they are computed from, tables that only the rating graph reads are left out, and the reasons take the rows of
the attention that the network has computed already. With a loss that is measured like any other: only the candidates
that the blend puts first (``kept``) are scored, as many as are returned at least.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compression.candidate import Flavour
from compression.ranker.packing import PackedTable
from compression.ranker.values import FoldedValues
from core.tensors import EXPLANATIONS, MASKED
from training.models.ranker import Ranker, RankerShape
from training.models.ranker_attention import HistoryView, TargetAttention, view_history
from training.models.ranker_features import PREDICTED_VALUE, LookedUp, features_of
from training.models.ranker_members import LinearMember, NetworkMember, TreesMember, gate_facts, user_shares
from training.models.ranker_merge import Merged, merge
from training.models.ranker_module import sort_scores

KEYS, POPULARITY, VALUES = "keys", "popularity", "values"
VARIANCES, DIRECTIONS = "variances", "directions"
STATISTICS = "statistics"
"""Names of columns."""


def attributes_of(member: int) -> str:
    """Name of the columns that hold the item attributes' vectors of a network."""
    return f"attributes {member}"


@dataclass(frozen=True)
class Ranks:
    """Widths of the two parts of the item keys.

    Attributes:
        similarity: Of recall's vectors.
        content: Of the content vectors.
    """

    similarity: int
    content: int

    @property
    def keys(self) -> int:
        """Of a key."""
        return self.similarity + self.content


@dataclass(frozen=True)
class PackedTables:
    """What is known of the items.

    Attributes:
        both: Looked up for candidates and history: keys, two statistics, value vectors with the bias last.
        past: Looked up for the history alone: value variances, then directions.
        item: Looked up for candidates alone: the other statistics, then the attributes of each network.
    """

    both: PackedTable
    past: PackedTable
    item: PackedTable


@dataclass(frozen=True)
class Scored:
    """Candidates with their scores.

    Attributes:
        scores: ``(B, C)``.
        weights: Attention of the first network ``(B, C, L)``; None without a network.
        queries: Keys of the candidates.
        keys: Keys of the past.
    """

    scores: Tensor
    weights: Tensor | None
    queries: Tensor
    keys: Tensor


class CompactNetwork(nn.Module):
    """A network member without the item attributes' table: their vectors come looked up.

    Args:
        member: What it takes its layers from; ``item_attributes`` is left out.
    """

    def __init__(self, member: NetworkMember) -> None:
        super().__init__()
        self.standard = member.standard
        self.user_attributes = member.user_attributes
        self.attention = member.attention
        self.network = member.network

    def forward(self, features: Tensor, attended: Tensor, attributes: Tensor, user_features: Tensor) -> Tensor:
        """Corrections ``(B, C)``."""
        user = self.user_attributes(user_features).unsqueeze(1).expand(-1, features.shape[1], -1)
        correction: Tensor = self.network(torch.cat([self.standard(features), attended, attributes, user], -1))
        return correction


class CompactRanker(nn.Module):
    """``Ranker.forward`` over packed tables.

    Args:
        shape: Sizes of the ranker.
        ranks: Widths of the keys.
        tables: What is known of the items.
        values: Predicts values; None for data without.
        ranker: What it takes blend, correction and strength from, as they are; its tables are not read, and its
            attentions fit ``ranks`` already.
        kept: Candidates that are scored, those with the highest blend of recall scores; 0 for all.
    """

    blend: Tensor
    value_weight: Tensor
    strength: Tensor
    shares: Tensor
    gate: Tensor

    def __init__(
        self, shape: RankerShape, ranks: Ranks, tables: PackedTables, values: FoldedValues | None, ranker: Ranker,
        kept: int = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.shape, self.ranks, self.kept = shape, ranks, kept
        self.both, self.past, self.item = tables.both, tables.past, tables.item
        self.values = values
        self.facts = ranker.correction.facts
        self.members = nn.ModuleList(
            CompactNetwork(member) if isinstance(member, NetworkMember) else member
            for member in ranker.correction.members
        )
        self.plain_attention = ranker.plain_attention
        for name in ("blend", "value_weight", "strength"):
            self.register_buffer(name, getattr(ranker, name).clone())
        for name in ("shares", "gate"):
            self.register_buffer(name, getattr(ranker.correction, name).clone())

    def served(self, flavour: Flavour) -> nn.Module:
        """For TensorRT the packed bytes lie in words."""
        if flavour == "onnxruntime":
            return self
        other = copy.copy(self)
        words = {name: cast(PackedTable, getattr(self, name)).in_words() for name in ("both", "past", "item")}
        other._modules = {**self._modules, **words}
        return other

    def forward(
        self,
        history_rows: Tensor,
        history_ages: Tensor,
        history_values: Tensor,
        user_features: Tensor,
        *lists: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """As :meth:`training.models.ranker.Ranker.forward`."""
        merged = self._first(merge(lists[0::2], lists[1::2]))
        history = view_history(history_rows, history_ages, history_values, self.shape.n_items)
        scored = self.score(merged, history, user_features)
        scores = torch.where(merged.valid, scored.scores, torch.full_like(scored.scores, MASKED))
        ordered, places = sort_scores(scores)
        ranked_scores, places = ordered[:, : self.shape.returned], places[:, : self.shape.returned]
        found = ranked_scores > MASKED / 2
        rows = torch.where(found, merged.rows.gather(1, places), torch.full_like(places, self.shape.n_items))
        return rows, ranked_scores, *self._reasons(scored, places, found, history)

    def _first(self, merged: Merged) -> Merged:
        """The ``kept`` candidates that stand first by the blend, copies and masked ones last."""
        if not self.kept:
            return merged
        blended = (merged.scores * self.blend).sum(-1)
        blended = torch.where(merged.valid, blended, torch.full_like(blended, MASKED))
        places = torch.topk(blended, self.kept, dim=1).indices
        chosen = places + torch.arange(places.shape[0], device=places.device).unsqueeze(1) * blended.shape[1]
        columns = _rows(torch.cat([merged.scores, merged.present, merged.discounts], -1), chosen)
        scores, present, discounts = columns.split(merged.scores.shape[-1], -1)
        return Merged(merged.rows.gather(1, places), merged.valid.gather(1, places), scores, present, discounts)

    def score(self, merged: Merged, history: HistoryView, user_features: Tensor) -> Scored:
        """Scores of all candidates, masked ones not yet masked."""
        of_items, of_past = self.both(merged.rows), self.both(history.rows)
        only_items = self.item(merged.rows)
        queries, keys = (part[..., self.both.place(KEYS)] for part in (of_items, of_past))
        pair, vectors = self.both.place(POPULARITY), self.both.place(VALUES)
        if self.values is None:
            predicted = torch.zeros_like(queries[..., 0])
        else:
            past_only = self.past(history.rows)
            predicted = self.values(of_items[..., vectors], of_past[..., vectors], past_only, history, user_features)
        statistics = torch.cat([of_items[..., pair], only_items[..., self.item.place(STATISTICS)]], -1)
        looked_up = LookedUp(queries, keys, statistics, of_past[..., pair], predicted, self.ranks.similarity)
        features = features_of(looked_up, merged, history)
        base = (merged.scores * self.blend).sum(-1) + self.value_weight * features[..., PREDICTED_VALUE]
        shares = user_shares(self.shares, self.gate, self.facts(gate_facts(features)))  # (B, M)
        correction = torch.zeros_like(base)
        first: Tensor | None = None
        for at, member in enumerate(self.members):
            if isinstance(member, CompactNetwork):
                weights = member.attention.weights(queries, keys, history)
                first = weights if first is None else first
                attended = member.attention.pool(weights, queries, keys, history)
                attributes = only_items[..., self.item.place(attributes_of(at))]
                of_member = member(features, attended, attributes, user_features)
            else:
                of_member = cast(LinearMember | TreesMember, member).of_features(features)
            correction = correction + shares[:, at : at + 1] * of_member
        return Scored(base + self.strength * correction, first, queries, keys)

    def _reasons(self, scored: Scored, places: Tensor, found: Tensor, history: HistoryView) -> tuple[Tensor, Tensor]:
        chosen = places + torch.arange(places.shape[0], device=places.device).unsqueeze(1) * scored.scores.shape[1]
        if scored.weights is None:
            attention = cast(TargetAttention, self.plain_attention)
            weights = attention.weights(_rows(scored.queries, chosen), scored.keys, history)
        else:
            weights = _rows(scored.weights, chosen)  # (B, R, L)
        top, at = torch.topk(weights, EXPLANATIONS, dim=-1)
        known = history.mask.any(1)[:, None, None]
        top = top * (found.unsqueeze(-1) & known).to(top.dtype)
        past = history.rows.gather(1, at.flatten(1)).unflatten(1, (-1, EXPLANATIONS))
        return torch.where(top > 0, past, torch.full_like(past, self.shape.n_items)), top


def _rows(values: Tensor, chosen: Tensor) -> Tensor:
    """Rows ``(B, R, W)`` of ``(B, C, W)`` by their place among all B C rows: whole rows are copied at once."""
    return F.embedding(chosen, values.flatten(0, 1))

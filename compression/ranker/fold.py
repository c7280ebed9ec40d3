"""From a trained ranker to its packed form, at the precision and the ranks asked for."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from compression.candidate import Unchanged
from compression.ranker.module import (
    DIRECTIONS,
    KEYS,
    POPULARITY,
    STATISTICS,
    VALUES,
    VARIANCES,
    CompactRanker,
    PackedTables,
    Ranks,
    attributes_of,
)
from compression.ranker.packing import Columns, PackedTable
from compression.ranker.values import FoldedValues, value_tables
from core.errors import CompressionError
from training.models.ranker import Ranker
from training.models.ranker_attention import TargetAttention
from training.models.ranker_features import STATISTICS_OF_HISTORY
from training.models.ranker_members import NetworkMember

MIX_SEED = 0


@dataclass(frozen=True)
class TableBits:
    """Precision of each group of columns: 32, 16, 8 or 4 bits.

    Attributes:
        keys: Similarity and content vectors.
        values: Vectors and biases of the rating model.
        sums: Its variances and directions, of which only sums over a history are used.
        statistics: Item statistics.
        attributes: Item attributes' vectors.
    """

    keys: int = 32
    values: int = 32
    sums: int = 32
    statistics: int = 32
    attributes: int = 32

    @classmethod
    def all(cls, bits: int) -> TableBits:
        """The same for every group."""
        return cls(bits, bits, bits, bits, bits)


def fold(
    ranker: Ranker, bits: TableBits | None = None, energy: float = 1.0, *, mix: bool = True, kept: int = 0
) -> tuple[CompactRanker, tuple[Unchanged, ...]]:
    """A ranker over packed tables, and what could not be changed as asked.

    Args:
        ranker: Trained.
        bits: Precision of the columns; float32 without.
        energy: Share of the keys' squared length that their leading directions keep, for similarity and content
            each. Only cosines of keys enter, so that a rotation is free and dropping the last directions is not.
        kept: See :class:`CompactRanker`.
        mix: Whether quantized keys are rotated at random, so that all their columns spread alike.

    Raises:
        CompressionError: A table or weight that is not finite.
    """
    check_finite(ranker)
    bits = bits or TableBits()
    tables = ranker.tables
    dimension = tables.dimension
    unchanged = []
    parts = []
    for name, vectors in (("similarity", tables.keys[:, :dimension]), ("content", tables.keys[:, dimension:])):
        reduced = leading_directions(vectors, energy, mix=mix and bits.keys < 16)
        if energy < 1 and reduced.shape[1] == vectors.shape[1]:
            reason = f"the first {vectors.shape[1] - 1} directions hold less than {energy:.4f} of the energy"
            unchanged.append(Unchanged(f"tables.keys, {name}", reason))
        parts.append(reduced)
    ranks = Ranks(parts[0].shape[1], parts[1].shape[1])
    small = with_width(ranker, ranks)
    both = [(Columns(KEYS, ranks.keys, bits.keys), torch.cat(parts, 1))]
    both.append(_columns(POPULARITY, bits.statistics, tables.statistics[:, :STATISTICS_OF_HISTORY]))
    past = []
    values = None
    if tables.rating is not None:
        values, of_values = FoldedValues.fold(tables.rating), value_tables(tables.rating)
        both.append(_columns(VALUES, bits.values, of_values.vectors))
        past.append(_columns(VARIANCES, bits.sums, of_values.variances))
        past.append(_columns(DIRECTIONS, bits.sums, of_values.directions))
    item = [_columns(STATISTICS, bits.statistics, tables.statistics[:, STATISTICS_OF_HISTORY:])]
    for at, member in enumerate(ranker.correction.members):
        if isinstance(member, NetworkMember):
            with torch.no_grad():
                attributes = member.item_attributes(tables.codes)
            item.append(_columns(attributes_of(at), bits.attributes, attributes))
    packed = PackedTables(*(PackedTable.pack(columns) for columns in (both, past, item)))
    return CompactRanker(ranker.shape, ranks, packed, values, small, kept).eval(), tuple(unchanged)


def check_finite(ranker: Ranker) -> None:
    """Raises CompressionError for the first tensor that holds NaN or Inf."""
    for name, tensor in ranker.state_dict().items():
        wrong = ~torch.isfinite(tensor)
        if bool(wrong.any()):
            raise CompressionError(
                "the ranker has weights that are not finite",
                where=name,
                expected="finite numbers",
                found=f"{int(wrong.sum()):,} NaN or Inf, the first at {tuple(wrong.nonzero()[0].tolist())}",
                next_step="train the ranker again",
            )


def leading_directions(vectors: Tensor, energy: float, *, mix: bool) -> Tensor:
    """Vectors ``(I + 1, D)`` in their fewest leading directions that keep ``energy`` of their squared length.

    Their products stay, up to what is dropped. Not centred: what counts are products, not distances.
    """
    if energy >= 1 and not mix:
        return vectors
    _, values, rotation = torch.linalg.svd(vectors.double(), full_matrices=False)
    kept = torch.cumsum(values**2, 0) / torch.clamp((values**2).sum(), min=1e-12)
    rank = len(values) if energy >= 1 else min(len(values), int((kept < energy).sum()) + 1)
    basis = rotation[:rank].T  # (D, rank)
    if mix:
        noise = torch.randn(rank, rank, dtype=torch.float64, generator=torch.Generator().manual_seed(MIX_SEED))
        basis = basis @ torch.linalg.qr(noise)[0]
    return (vectors.double() @ basis).float()


def with_width(ranker: Ranker, ranks: Ranks) -> Ranker:
    """A copy without item tables whose attentions split keys as ``ranks`` does: their own weights know no widths."""
    small = copy.copy(ranker)
    small._modules = {name: part for name, part in ranker._modules.items() if name != "tables"}
    small = copy.deepcopy(small)
    attentions = [member.attention for member in small.correction.members if isinstance(member, NetworkMember)]
    for attention in [*attentions, cast(TargetAttention | None, small.plain_attention)]:
        if attention is not None:
            attention.dimension = ranks.similarity
    return small


def _columns(name: str, bits: int, values: Tensor) -> tuple[Columns, Tensor]:
    return Columns(name, values.shape[1], bits), values.detach().float()

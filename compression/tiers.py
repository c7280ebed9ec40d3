"""Tables whose rows have as many bits as their items are popular.

Popular items fill the lists and the histories; a row that hardly ever takes part in either may be coarse. Rows are
ordered by popularity and cut into four equal tiers, each with its own code width from 8 bits down to 0 (a row of
zeros). ``value = (code - middle) * row scale * column scale``: symmetric, since a row of zeros needs no code then, and
with one byte per row for the logarithm of its scale.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from compression.quantize import Quantized

Widths = tuple[int, int, int, int]
"""Bits of the four tiers, most popular first."""
LEVELS = 255
"""Codes of row scales above 0, which says that the row is zero."""
CLIPS = 16
"""Scales tried per row, from the whole range down to a fifth."""


@dataclass(frozen=True)
class Tiered:
    """A table in tiers.

    Attributes:
        planes: Per tier, its codes as bits: uint8 ``(bits * ceil(rows * D / 8),)``, plane by plane, lowest bit first.
        row_scale: uint8 ``(N,)``, in order of popularity: 0 is a row of zeros, c is ``exp(low + c * step)``.
        scale_range: float32 ``(2,)``: low and step.
        columns: float32 ``(D,)``.
        order: int64 ``(N,)``, item rows by popularity; not stored, read off a column of the model.
        widths: Bits of the tiers.
    """

    planes: tuple[torch.Tensor, ...]
    row_scale: torch.Tensor
    scale_range: torch.Tensor
    columns: torch.Tensor
    order: torch.Tensor
    widths: Widths

    def steps(self) -> torch.Tensor:
        """Odd multiples of the row's scale, 0 in tiers without bits; float32 ``(N, D)`` by item row."""
        return in_item_order(
            [unpack_planes(plane, rows, len(self.columns), bits) for plane, rows, bits in self.parts()], self.order
        )

    def parts(self) -> list[tuple[torch.Tensor, int, int]]:
        """Planes, rows and bits of each tier."""
        return list(zip(self.planes, tier_sizes(len(self.order)), self.widths, strict=True))

    def scales(self) -> torch.Tensor:
        """float32 ``(N,)`` by item row."""
        return in_item_order([row_scales(self.row_scale, self.scale_range)], self.order)

    def quantized(self) -> Quantized:
        """The same table with one byte per value."""
        scale = self.scales()
        return Quantized((self.steps() + 128).to(torch.uint8), scale, -128 * scale, 8, "rows", self.columns)

    def values(self) -> torch.Tensor:
        """The table that the codes stand for, float32 ``(N, D)``."""
        return self.steps() * self.scales()[:, None] * self.columns


def popularity_order(popularity: torch.Tensor) -> torch.Tensor:
    """Item rows, most popular first, ties to the lower row; int64 ``(N,)``."""
    if torch.compiler.is_exporting():  # ONNX has no stable sort, but its TopK breaks ties that way itself
        return torch.topk(popularity.float(), len(popularity)).indices
    return torch.sort(popularity.float(), descending=True, stable=True).indices


def tier_sizes(count: int) -> tuple[int, int, int, int]:
    """Rows of each tier: quarters, what is left over in the last."""
    quarter = count // 4
    return quarter, quarter, quarter, count - 3 * quarter


def quantize_tiers(table: torch.Tensor, order: torch.Tensor, widths: Widths, spread: float) -> Tiered:
    """A table in tiers.

    Args:
        table: float32 ``(N, D)``.
        order: Item rows by popularity ``(N,)``.
        widths: Bits of the tiers, 0..7.
        spread: Columns are divided by their standard deviation to this power before one scale per row is sought: 0
            lets wide columns have finer codes relative to their width, 1 treats all alike.
    """
    deviation = table.square().mean(0).sqrt()
    columns = (deviation / deviation.max().clamp(min=1e-30)).clamp(min=1e-6) ** spread
    rows = (table / columns)[order]
    parts, scales = [], []
    at = 0
    for size, bits in zip(tier_sizes(len(order)), widths, strict=True):
        code, scale = _symmetric(rows[at : at + size], bits)
        parts.append(code)
        scales.append(scale)
        at += size
    row_scale, scale_range = _coded_scales(torch.cat(scales))
    exact = row_scales(row_scale, scale_range)
    planes = []
    at = 0
    for size, bits in zip(tier_sizes(len(order)), widths, strict=True):
        codes = _codes_of(rows[at : at + size], exact[at : at + size], bits)
        planes.append(pack_planes(codes, bits))
        at += size
    return Tiered(tuple(planes), row_scale, scale_range, columns, order, widths)


def pack_planes(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """The bits of codes ``(n, D)``, plane by plane, eight to a byte."""
    packed = []
    for plane in range(bits):
        flat = ((codes >> plane) & 1).flatten()
        flat = torch.cat([flat, flat.new_zeros(-len(flat) % 8)]).reshape(-1, 8)
        packed.append((flat << torch.arange(8, dtype=torch.uint8)).sum(1).to(torch.uint8))
    return torch.cat(packed) if packed else torch.zeros(0, dtype=torch.uint8)


def unpack_planes(packed: torch.Tensor, rows: int, dimension: int, bits: int) -> torch.Tensor:
    """Steps of one tier, float32 ``(rows, D)``: ``2 code - (2^bits - 1)``, or 0 without bits."""
    if bits == 0:
        return torch.zeros(rows, dimension)
    size = -(-rows * dimension // 8)
    total = torch.full((rows, dimension), 1.0 - 2**bits)
    for plane in range(bits):
        octets = packed[plane * size : (plane + 1) * size]
        spread = F.embedding(octets.long(), bits_of_octets()).reshape(-1)[: rows * dimension]
        total = total + spread.reshape(rows, dimension) * 2.0 ** (plane + 1)
    return total


def bits_of_octets() -> torch.Tensor:
    """The bits of every byte, lowest first, float32 ``(256, 8)``: a look-up is an operator of every ONNX back end."""
    octets = torch.arange(256, dtype=torch.int64)
    return torch.stack([(octets // 2**at) % 2 for at in range(8)], 1).float()


def row_scales(row_scale: torch.Tensor, scale_range: torch.Tensor) -> torch.Tensor:
    """float32 scales of coded ones, in the same order."""
    coded = row_scale.float()
    return torch.where(coded > 0, torch.exp(scale_range[0] + coded * scale_range[1]), torch.zeros_like(coded))


def in_item_order(parts: list[torch.Tensor], order: torch.Tensor) -> torch.Tensor:
    """Rows by popularity back in item order."""
    places = torch.zeros_like(order).scatter(0, order, torch.arange(len(order)))
    return torch.cat(parts)[places]


def _symmetric(rows: torch.Tensor, bits: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes and the scale per row that errs least; 0 for rows of zeros and for tiers of 0 bits."""
    if bits == 0 or len(rows) == 0:
        return torch.zeros(rows.shape, dtype=torch.uint8), torch.zeros(len(rows))
    widest = rows.abs().amax(1)
    best, least = torch.zeros(len(rows)), torch.full((len(rows),), math.inf)
    for share in torch.linspace(1.0, 0.2, CLIPS):
        scale = widest * share / (2**bits - 1)
        error = (_values_of(_codes_of(rows, scale, bits), scale, bits) - rows).square().sum(1)
        best, least = torch.where(error < least, scale, best), torch.minimum(error, least)
    return _codes_of(rows, best, bits), torch.where(widest > 0, best, torch.zeros_like(best))


def _codes_of(rows: torch.Tensor, scale: torch.Tensor, bits: int) -> torch.Tensor:
    """Nearest codes: levels are odd multiples of the scale."""
    steps = rows / scale.clamp(min=1e-30)[:, None]
    return ((steps + (2**bits - 1)) / 2).round().clamp(0, 2**bits - 1).to(torch.uint8)


def _values_of(codes: torch.Tensor, scale: torch.Tensor, bits: int) -> torch.Tensor:
    return (2 * codes.float() - (2**bits - 1)) * scale[:, None]


def _coded_scales(scales: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    known = scales > 0
    logs = torch.log(scales[known].double())
    low, high = (float(logs.min()), float(logs.max())) if known.any() else (0.0, 0.0)
    step = max((high - low) / (LEVELS - 1), 1e-9)
    codes = torch.zeros(len(scales), dtype=torch.uint8)
    codes[known] = (1 + ((logs - low) / step).round().clamp(0, LEVELS - 1)).to(torch.uint8)
    return codes, torch.tensor([low - step, step], dtype=torch.float32)

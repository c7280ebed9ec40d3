"""Tables as small integers: int8 and int4 codes per row or per column, ranges searched for the least squared error.

Rows: value = offset + scale * code, scale and offset in float16 beside each row, as FBGEMM and torch's
``embedding_bag_4bit_prepack`` store them. Columns: value = scale * (code - zero) with one scale and an integer zero per
column, so that rows of zeros (padding, unseen items) stay exactly zero and a row costs nothing but its codes; after a
rank reduction every column has a spread of its own, which scales per row cannot follow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from core.errors import CompressionError

Axis = Literal["rows", "columns"]
STEPS = 200
"""Places of the greedy search over a row's range."""
LEAST_SHARE = 0.84
"""The greedy search gives up at this share of the range: Guan et al. 2019 (arXiv 1911.02079), torch has the same."""
SHRINKS = 24
"""Ranges tried per column, from the whole one down to a third."""


@dataclass(frozen=True)
class Quantized:
    """A table as codes.

    Attributes:
        codes: uint8 ``(N, D)``, below ``2 ** bits``.
        scale: ``(N,)`` float16 for rows, ``(D,)`` float32 for columns.
        zero: Rows: float16 offset ``(N,)``, the value of code 0. Columns: float32 ``(D,)``, the code of value 0.
        bits: 8 or 4.
        axis: What scales belong to.
        columns: Rows only: a factor per column ``(D,)``, or None.
    """

    codes: torch.Tensor
    scale: torch.Tensor
    zero: torch.Tensor
    bits: int
    axis: Axis
    columns: torch.Tensor | None = None

    def values(self) -> torch.Tensor:
        """The table that the codes stand for, float32 ``(N, D)``."""
        codes = self.codes.float()
        if self.axis == "rows":
            scale, offset, centre = self.scale.float()[:, None], self.zero.float()[:, None], 2 ** (self.bits - 1)
            values = (codes - centre) * scale + (offset + centre * scale)
            return values if self.columns is None else values * self.columns
        return (codes - self.zero) * self.scale


def quantize(table: torch.Tensor, bits: int, axis: Axis, weights: torch.Tensor | None = None) -> Quantized:
    """Codes of a table.

    Args:
        table: float32 ``(N, D)``.
        bits: 8 or 4.
        axis: Scales per row or per column.
        weights: How much each row's squared error counts in the choice of a column's range ``(N,)``; ones when None.

    Raises:
        CompressionError: Other bits, or a value that is not finite.
    """
    if bits not in (4, 8):
        raise CompressionError("no such code width", where="bits", expected="8 or 4", found=str(bits))
    if not bool(torch.isfinite(table).all()):
        raise CompressionError(
            "a table holds values that are not finite",
            found=f"{int((~torch.isfinite(table)).sum()):,} of {table.numel():,}",
            next_step="train the model again",
        )
    return _by_rows(table.float(), bits) if axis == "rows" else _by_columns(table.float(), bits, weights)


def _by_rows(table: torch.Tensor, bits: int) -> Quantized:
    low, high = greedy_ranges(table, bits) if bits < 8 else (table.amin(1), table.amax(1))
    top = 2**bits - 1
    offset = low.half()
    scale = ((high - low) / top).half()
    flat = scale.float() < torch.finfo(torch.float16).tiny  # rows of equal values: the offset alone says it all
    scale = torch.where(flat, torch.zeros_like(scale), scale)
    steps = torch.where(flat, torch.ones_like(high), scale.float())[:, None]
    codes = ((table - offset.float()[:, None]) / steps).round().clamp(0, top)
    codes = torch.where(flat[:, None], torch.zeros_like(codes), codes)
    return Quantized(codes.to(torch.uint8), scale, offset, bits, "rows")


def greedy_ranges(table: torch.Tensor, bits: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Each row's range with the least squared error on the greedy path of Guan et al. 2019, alg. 1.

    From the whole range, whichever end hurts less when moved inwards by ``range / 200`` is moved, down to 84 % of the
    range; the best range met on the way is kept.

    Args:
        table: float32 ``(N, D)``.
        bits: Code width.

    Returns:
        Lower and upper ends float32 ``(N,)``.
    """
    low, high = table.amin(1), table.amax(1)
    step = (high - low) / STEPS
    best_low, best_high = low.clone(), high.clone()
    least = _error(table, low, high, bits)
    for _ in range(int(STEPS * (1 - LEAST_SHARE))):
        left, right = _error(table, low + step, high, bits), _error(table, low, high - step, bits)
        move_left = left < right
        low, high = torch.where(move_left, low + step, low), torch.where(move_left, high, high - step)
        error = torch.minimum(left, right)
        better = error < least
        least = torch.where(better, error, least)
        best_low, best_high = torch.where(better, low, best_low), torch.where(better, high, best_high)
    return best_low, best_high


def _error(table: torch.Tensor, low: torch.Tensor, high: torch.Tensor, bits: int) -> torch.Tensor:
    """Squared error per row of codes over ``[low, high]``."""
    top = 2**bits - 1
    scale = ((high - low) / top).clamp(min=1e-30)[:, None]
    codes = ((table - low[:, None]) / scale).round().clamp(0, top)
    return (codes * scale + low[:, None] - table).square().sum(1)


def _by_columns(table: torch.Tensor, bits: int, weights: torch.Tensor | None) -> Quantized:
    """Both ends of every column's range are shrunk in turn; the code of value 0 is an integer within the codes."""
    top = 2**bits - 1
    mass = torch.ones(len(table)) if weights is None else weights.float()
    low, high = table.amin(0).clamp(max=0), table.amax(0).clamp(min=0)
    best = _snapped(low, high, top)
    least = _column_error(table, *best, top, mass)
    shares = torch.linspace(1.0, 1 / 3, SHRINKS)
    for of_low in shares:
        for of_high in shares:
            scale, zero = _snapped(low * of_low, high * of_high, top)
            error = _column_error(table, scale, zero, top, mass)
            better = error < least
            least = torch.where(better, error, least)
            best = torch.where(better, scale, best[0]), torch.where(better, zero, best[1])
    scale, zero = best
    codes = (table / scale + zero).round().clamp(0, top)
    return Quantized(codes.to(torch.uint8), scale, zero, bits, "columns")


def _snapped(low: torch.Tensor, high: torch.Tensor, top: int) -> tuple[torch.Tensor, torch.Tensor]:
    scale = ((high - low) / top).clamp(min=1e-12)
    return scale, (-low / scale).round().clamp(0, top)


def _column_error(
    table: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor, top: int, mass: torch.Tensor
) -> torch.Tensor:
    sample = table if len(table) <= 20_000 else table[:: len(table) // 20_000]
    mass = mass if len(table) <= 20_000 else mass[:: len(table) // 20_000]
    codes = (sample / scale + zero).round().clamp(0, top)
    return (((codes - zero) * scale - sample).square() * mass[:, None]).sum(0)


def random_rotation(dimension: int, seed: int) -> torch.Tensor:
    """A random orthonormal matrix ``(D, D)``: spreads a row's energy evenly, which suits one scale per row."""
    drawn = torch.randn(dimension, dimension, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    basis, upper = torch.linalg.qr(drawn)
    return (basis * torch.sign(torch.diagonal(upper))).float()


def random_turn(dimension: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Two random orthonormal matrices whose Kronecker product is ``(D, D)``, as alike in size as D allows."""
    smaller = max(side for side in range(1, int(dimension**0.5) + 1) if dimension % side == 0)
    return random_rotation(smaller, seed), random_rotation(dimension // smaller, seed + 1)


def pack_nibbles(codes: torch.Tensor) -> torch.Tensor:
    """Two 4-bit codes per byte: uint8 ``(N, ceil(D / 2))``; the low nibbles are the first half of the columns."""
    width = (codes.shape[1] + 1) // 2
    low, high = codes[:, :width], codes[:, width:]
    if high.shape[1] < width:
        high = torch.cat([high, high.new_zeros(len(high), width - high.shape[1])], 1)
    return low | (high << 4)


def unpack_nibbles(packed: torch.Tensor, dimension: int) -> torch.Tensor:
    """The codes that :func:`pack_nibbles` packed, uint8 ``(..., D)``."""
    return torch.cat([packed & 15, packed >> 4], -1)[..., :dimension]


def nibbles_of_octets() -> torch.Tensor:
    """Both codes of every byte, low one first, float32 ``(256, 2)``: a look-up is an operator of every back end."""
    octets = torch.arange(256)
    return torch.stack([octets % 16, octets // 16], 1).float()

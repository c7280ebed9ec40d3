"""Rows of numbers at few bits: gathered first, then turned into float32, in operators that every runtime has.

A column has one symmetric scale: code 0 is exactly 0.0, so that padding rows stay zero. Two kinds of codes share one
byte table: 8 bits as they are, 4 bits in pairs. Halves and floats have tables of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from core.errors import CompressionError

LARGEST_CODE = {8: 127, 4: 7}
CLIPS = np.linspace(0.5, 1.0, 26)
"""Tried shares of a column's largest magnitude that the largest code stands for."""
LANES = 4
"""Bytes in a word."""


@dataclass(frozen=True)
class Columns:
    """Neighbouring columns of one precision.

    Attributes:
        name: What they hold.
        width: How many.
        bits: 32, 16, 8 or 4.
    """

    name: str
    width: int
    bits: int

    def __post_init__(self) -> None:
        if self.bits not in (32, 16, 8, 4):
            raise CompressionError(
                "columns of a ranker's table have no such precision",
                where=self.name,
                expected="32, 16, 8 or 4 bits",
                found=str(self.bits),
            )


class PackedTable(nn.Module):
    """Rows ``(...)`` to float32 ``(..., W)``; columns of many bits come first, see ``place``.

    Args:
        columns: W is their width together.
        n_rows: Rows.
        words: Bytes lie in int32 words, four by four, as TensorRT needs them: it takes no integer of 8 bits outside
            of quantization. Otherwise they are an int8 table, which ONNX Runtime gathers directly.
    """

    codes: Tensor
    scales: Tensor
    halves: Tensor
    floats: Tensor

    def __init__(self, columns: Sequence[Columns], n_rows: int, *, words: bool = False) -> None:
        super().__init__()
        self.columns = tuple(sorted((one for one in columns if one.width), key=lambda one: -one.bits))
        self.words = words
        self.eights, self.fours = self._width(8), self._width(4)
        n_bytes = self.eights + (self.fours + 1) // 2
        shape = (n_rows, -(-n_bytes // LANES)) if words else (n_rows, n_bytes)
        self.n_bytes = n_bytes
        self.register_buffer("codes", torch.zeros(shape, dtype=torch.int32 if words else torch.int8))
        self.register_buffer("scales", torch.ones(self.eights + self.fours))
        self.register_buffer("halves", torch.zeros(n_rows, self._width(16), dtype=torch.float16))
        self.register_buffer("floats", torch.zeros(n_rows, self._width(32)))

    @property
    def width(self) -> int:
        """W."""
        return sum(column.width for column in self.columns)

    def place(self, name: str) -> slice:
        """Where columns lie in an answer; an empty slice for columns that the table does not have."""
        start = 0
        for column in self.columns:
            if column.name == name:
                return slice(start, start + column.width)
            start += column.width
        return slice(start, start)

    @classmethod
    def pack(cls, parts: Sequence[tuple[Columns, Tensor]]) -> PackedTable:
        """A table of ``(columns, values (rows, width))``, for ONNX Runtime.

        Raises:
            CompressionError: A value that is not finite, or beyond what half precision holds.
        """
        parts = sorted(((one, values) for one, values in parts if one.width), key=lambda part: -part[0].bits)
        for columns, values in parts:
            _check(columns, values)
        table = cls([columns for columns, _ in parts], len(parts[0][1]) if parts else 0)
        for bits, name in ((32, "floats"), (16, "halves")):
            held = [values for columns, values in parts if columns.bits == bits]
            if held:
                getattr(table, name).copy_(torch.cat(held, 1))
        quantized = {
            bits: [quantize_columns(values, bits) for columns, values in parts if columns.bits == bits]
            for bits in LARGEST_CODE
        }
        if any(quantized.values()):
            table.scales.copy_(torch.cat([scales for bits in LARGEST_CODE for _, scales in quantized[bits]]))
            eights = [codes for codes, _ in quantized[8]]
            fours = [_pairs(torch.cat([codes for codes, _ in quantized[4]], 1))] if quantized[4] else []
            table.codes.copy_(torch.cat([*eights, *fours], 1))
        return table

    def in_words(self) -> PackedTable:
        """The same table for TensorRT."""
        other = PackedTable(self.columns, len(self.codes), words=True)
        raw = torch.zeros(len(self.codes), other.codes.shape[1] * LANES, dtype=torch.int64)
        raw[:, : self.n_bytes] = self.codes.long() + 128
        lanes = raw.view(len(self.codes), LANES, -1)  # byte b is lane b // words of word b % words
        word = sum(lanes[:, lane] << (8 * lane) for lane in range(LANES)) - 2**31
        other.codes.copy_(torch.as_tensor(word))
        for name in ("scales", "halves", "floats"):
            getattr(other, name).copy_(getattr(self, name))
        return other

    def forward(self, rows: Tensor) -> Tensor:
        parts = []
        if self.floats.shape[1]:
            parts.append(nn.functional.embedding(rows, self.floats))
        if self.halves.shape[1]:
            parts.append(nn.functional.embedding(rows, self.halves).float())
        if self.n_bytes:
            parts.append(self._dequantized(rows) * self.scales)
        return torch.cat(parts, -1) if len(parts) > 1 else parts[0]

    def _dequantized(self, rows: Tensor) -> Tensor:
        raw = self._bytes(rows)
        if not self.fours:
            return raw
        pairs = raw[..., self.eights :] + 128.0
        high = torch.floor(pairs * 0.0625)
        low = pairs - 16.0 * high
        nibbles = torch.cat([low, high], -1)[..., : self.fours] - 8.0
        return torch.cat([raw[..., : self.eights], nibbles], -1) if self.eights else nibbles

    def _bytes(self, rows: Tensor) -> Tensor:
        """Float32 ``(..., n_bytes)`` from -128 to 127."""
        gathered = nn.functional.embedding(rows, self.codes)
        if not self.words:
            return gathered.float()
        unsigned = gathered.long() + 2**31
        # Remainders only: the exporter writes an integer division as one of float32, which is short of bits. A lane in
        # its place has 8 significant bits and turns into a float exactly.
        below = [torch.zeros_like(unsigned), *(unsigned % 256**lane for lane in range(1, LANES)), unsigned]
        lanes = [(below[lane + 1] - below[lane]).float() * 256.0**-lane for lane in range(LANES)]
        return torch.cat(lanes, -1)[..., : self.n_bytes] - 128.0

    def _width(self, bits: int) -> int:
        return sum(column.width for column in self.columns if column.bits == bits)

    def to_facts(self) -> list[dict[str, Any]]:
        """Its columns as plain JSON values."""
        return [{"name": one.name, "width": one.width, "bits": one.bits} for one in self.columns]

    @classmethod
    def from_facts(cls, facts: Sequence[Mapping[str, Any]], n_rows: int) -> PackedTable:
        """An empty table to load stored tensors into."""
        return cls([Columns(str(one["name"]), int(one["width"]), int(one["bits"])) for one in facts], n_rows)


def quantize_columns(values: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Codes int8 ``(rows, W)`` and scales ``(W,)`` of least squared error, one scale per column; 0 stays 0."""
    largest, table = LARGEST_CODE[bits], values.double().numpy()
    reach = np.abs(table).max(0, initial=0.0)
    reach = np.where(reach > 0, reach, 1.0)
    best, best_error = reach / largest, np.full(table.shape[1], np.inf)
    for clip in CLIPS:
        scale = (clip * reach / largest).astype(np.float32).astype(np.float64)
        found = np.clip(np.rint(table / scale), -largest, largest) * scale
        error = ((found - table) ** 2).sum(0)
        best, best_error = np.where(error < best_error, scale, best), np.minimum(error, best_error)
    codes = np.clip(np.rint(table / best), -largest, largest).astype(np.int8)
    return torch.from_numpy(codes), torch.from_numpy(best.astype(np.float32))


def _pairs(codes: Tensor) -> Tensor:
    """Codes from -7 to 7 in pairs: byte b holds column b low and column b + half high."""
    half = (codes.shape[1] + 1) // 2
    padded = nn.functional.pad(codes.long() + 8, (0, 2 * half - codes.shape[1]), value=8)
    return (padded[:, :half] + 16 * padded[:, half:] - 128).to(torch.int8)


def _check(columns: Columns, values: Tensor) -> None:
    wrong = ~torch.isfinite(values).all(1)
    if bool(wrong.any()):
        raise CompressionError(
            "a ranker's table has values that are not finite",
            where=columns.name,
            expected="finite numbers",
            found=f"NaN or Inf in {int(wrong.sum()):,} rows, the first is {int(wrong.nonzero()[0])}",
            next_step="train the ranker again",
        )
    if columns.bits == 16 and bool((values.abs() > torch.finfo(torch.float16).max).any()):
        raise CompressionError(
            "a ranker's table does not fit half precision", where=columns.name, found=str(float(values.abs().max()))
        )

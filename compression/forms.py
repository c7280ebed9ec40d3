"""Modules that stand for packed tables in exported graphs. Each looks rows up, and scans all of them."""

from __future__ import annotations

from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import nn

from compression.quantize import Quantized, nibbles_of_octets, pack_nibbles
from core.tensors import MASKED

SMALLEST_SCALE = 1e-20
"""TensorRT refuses scales of 0, which rows of zeros have."""
LARGEST_SAFE = 63
"""Weights up to this size never saturate 16 bits in sums of two products with unsigned bytes."""


class MaskedColumn(nn.Module):
    """A float16 column ``(I,)`` as float32 ``(I + 1,)`` whose last entry is ``MASKED``."""

    values: torch.Tensor

    def __init__(self, values: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("values", values)

    def forward(self) -> torch.Tensor:
        return torch.cat([self.values.float(), torch.full((1,), MASKED)])


class CodedTable(nn.Module):
    """Base of the forms: codes as stored, two per byte where they have 4 bits.

    Args:
        table: Codes with their scales.
    """

    codes: torch.Tensor
    scale: torch.Tensor
    zero: torch.Tensor
    columns: torch.Tensor | None

    def __init__(self, table: Quantized) -> None:
        super().__init__()
        self.bits, self.axis, self.dimension = table.bits, table.axis, table.codes.shape[1]
        self.centre = 2 ** (table.bits - 1)  # products about the middle cancel nothing
        self.register_buffer("codes", pack_nibbles(table.codes) if table.bits == 4 else table.codes)
        self.register_buffer("scale", table.scale)
        self.register_buffer("zero", table.zero)
        self.register_buffer("columns", table.columns)

    def widened(self, vectors: torch.Tensor) -> torch.Tensor:
        """Vectors ``(..., D)`` times the factor of each column, where the table has such."""
        return vectors if self.columns is None else vectors * self.columns

    def unpacked(self, codes: torch.Tensor) -> torch.Tensor:
        """Codes as float32 ``(..., D)`` of stored ones."""
        if self.bits == 8:
            return codes.float()
        pairs = F.embedding(codes.long(), nibbles_of_octets())  # (..., D / 2, 2)
        return torch.cat([pairs[..., 0], pairs[..., 1]], -1)[..., : self.dimension]

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Vectors float32 ``(B, L, D)`` of rows ``(B, L)``: codes are gathered first, then dequantized."""
        values = self.unpacked(F.embedding(rows, self.codes))
        if self.axis == "columns":
            return (values - self.zero) * self.scale
        scale, offset = (F.embedding(rows, part[:, None]).float() for part in (self.scale, self.zero))
        return self.widened((values - self.centre) * scale + (offset + self.centre * scale))

    @abstractmethod
    def scan(self, vectors: torch.Tensor) -> torch.Tensor:
        """Products ``(B, N)`` of vectors ``(B, D)`` with all rows."""


class UnpackedTable(CodedTable):
    """Dequantized as a constant: once, when ONNX Runtime loads the graph."""

    def table(self) -> torch.Tensor:
        """float32 ``(N, D)``."""
        values = self.unpacked(self.codes)
        if self.axis == "columns":
            return (values - self.zero) * self.scale
        scale, offset = self.scale.float()[:, None], self.zero.float()[:, None]
        return self.widened((values - self.centre) * scale + (offset + self.centre * scale))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """See the base class."""
        return F.embedding(rows, self.table())

    def scan(self, vectors: torch.Tensor) -> torch.Tensor:
        """See the base class."""
        return vectors @ self.table().T


class IntegerTable(CodedTable):
    """Stays small integers in memory and is scanned by MatMulInteger: a form for ONNX Runtime, never run in torch.

    The scan is approximate: vectors are quantized to 8 bits, and codes of 8 bits to 7, since ONNX Runtime's kernels for
    processors without VNNI saturate on products of full 8-bit pairs. What it finds is scored again from exact rows, so
    all that the approximation can do is to miss a candidate; ``spare`` more are fetched to make that rare.
    """

    spare = 64

    def __init__(self, table: Quantized) -> None:
        super().__init__(table)
        self.halved = int((table.codes.int() - self.centre).abs().max()) > LARGEST_SAFE

    def scan(self, vectors: torch.Tensor) -> torch.Tensor:
        """See the base class; off by about half a percent of the largest product."""
        codes = self.unpacked(self.codes)
        step = 2.0 if self.halved else 1.0
        centred = torch.floor((codes - self.centre) / step).to(torch.int8).T  # (D, N), folded when the session loads
        vectors = self.widened(vectors)
        weighted = vectors * self.scale if self.axis == "columns" else vectors
        small, spread, zero = _quantized_vectors(weighted)
        counts = torch.onnx.ops.symbolic(
            "MatMulInteger",
            (small, centred, zero),
            dtype=torch.int32,
            shape=(vectors.shape[0], self.codes.shape[0]),
            version=20,
        )
        found = counts.float() * (spread * step)
        constant = self.centre + (step - 1) / 2  # what halving drops is half a step on average
        if self.axis == "columns":
            return found + (weighted * (constant - self.zero)).sum(1, keepdim=True)
        total = vectors.sum(1, keepdim=True)
        return (found + constant * total) * self.scale.float() + total * self.zero.float()


def _quantized_vectors(vectors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """uint8 codes ``(B, D)``, one scale and one zero for the whole batch."""
    codes, scale, zero = torch.onnx.ops.symbolic_multi_out(
        "DynamicQuantizeLinear",
        (vectors,),
        dtypes=(torch.uint8, torch.float32, torch.uint8),
        shapes=(vectors.shape, (), ()),
        version=20,
    )
    return codes, scale, zero


class PortableTable(CodedTable):
    """Standard operators that TensorRT takes: no 8-bit unsigned tensors, no zero points, no MatMulInteger.

    For look-ups, codes lie in int32 words and are taken apart by divisions after the gather, so that a plan keeps the
    words; the scan dequantizes int8 codes with DequantizeLinear, which TensorRT fuses into the product.
    """

    words: torch.Tensor
    centred: torch.Tensor

    def __init__(self, table: Quantized) -> None:
        super().__init__(table)
        self.per_word = 32 // self.bits
        self.register_buffer("words", pack_words(table.codes, self.bits))
        self.register_buffer("centred", (table.codes.to(torch.int16) - 128).to(torch.int8).T.contiguous())
        self.register_buffer("codes", None)
        self.register_buffer("scale", table.scale.float().clamp(min=SMALLEST_SCALE))
        self.register_buffer("zero", table.zero.float())

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """See the base class."""
        words = F.embedding(rows, self.words).long() + 2**31  # (B, L, W), not negative
        base = 2**self.bits
        parts = [(words // base**at) % base for at in range(self.per_word)]
        codes = torch.stack(parts, -1).flatten(-2)[..., : self.dimension].float()
        if self.axis == "columns":
            return (codes - self.zero) * self.scale
        scale, offset = (F.embedding(rows, part[:, None]) for part in (self.scale, self.zero))
        return self.widened((codes - self.centre) * scale + (offset + self.centre * scale))

    def scan(self, vectors: torch.Tensor) -> torch.Tensor:
        """See the base class."""
        vectors = self.widened(vectors)
        total = vectors.sum(1, keepdim=True)
        if self.axis == "columns":
            table = _dequantized(self.centred, self.scale, 0)  # (D, N)
            return vectors @ table + (vectors * self.scale * (128 - self.zero)).sum(1, keepdim=True)
        table = _dequantized(self.centred, self.scale, 1)
        return vectors @ table + total * (self.zero + 128 * self.scale)


def _dequantized(codes: torch.Tensor, scale: torch.Tensor, axis: int) -> torch.Tensor:
    dequantized: torch.Tensor = torch.onnx.ops.symbolic(
        "DequantizeLinear", (codes, scale), {"axis": axis}, dtype=torch.float32, shape=codes.shape, version=20
    )
    return dequantized


def pack_words(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """Codes ``(N, D)`` as int32 words ``(N, ceil(D bits / 32))``, lowest bits first, less 2^31."""
    per_word = 32 // bits
    missing = -codes.shape[1] % per_word
    padded = F.pad(codes.long(), (0, missing)).unflatten(1, (-1, per_word))  # (N, W, per word)
    words = (padded << (bits * torch.arange(per_word))).sum(-1)
    return (words - 2**31).to(torch.int32)

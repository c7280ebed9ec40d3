"""The form of a large table in an ONNX Runtime graph that reads a few of its blocks, see ``compression.blocks``."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from compression.blocks import ROWS, SPREADS, Blocks, Reaches
from compression.forms import LARGEST_SAFE, IntegerTable
from compression.quantize import Quantized
from core.tensors import MASKED

LARGEST_CODE = 127
"""Of a user vector's codes, which are stored as unsigned bytes about 128."""


class BlockTable(nn.Module):
    """A table in blocks, scanned in three steps: reaches of all blocks, 7-bit products in the best P, exact scores.

    Each user's vector has a scale of its own, so that an answer does not depend on who else is in the batch. In torch
    the same integers are multiplied as floats, exactly: sums stay below 2^24.

    Args:
        table: Codes that rows are looked up in, padding row last.
        blocks: How items are arranged.
        item_bias: float32 ``(I + 1,)``.
        empty_bias: float32 ``(I + 1,)``, in place of the other for users without a history.
        spare: Items beyond K that are scored exactly.
    """

    codes: torch.Tensor
    scale: torch.Tensor
    bias: torch.Tensor
    tops: torch.Tensor
    means: torch.Tensor
    variances: torch.Tensor
    basis: torch.Tensor
    places: torch.Tensor
    order: torch.Tensor
    sizes: torch.Tensor

    def __init__(
        self, table: Quantized, blocks: Blocks, item_bias: torch.Tensor, empty_bias: torch.Tensor, spare: int = 64
    ) -> None:
        super().__init__()
        self.rows = IntegerTable(table)
        values, order = table.values(), blocks.order.long()
        self.n_items, self.count, self.probes, self.spare = len(values) - 1, len(order), blocks.probes, spare
        codes, scale = _seven_bits(values)
        reaches = Reaches.of(values, blocks.order, blocks.basis)
        biases = torch.stack([item_bias, empty_bias])[:, order]  # (2, C, S)
        places = torch.full((self.n_items + 1,), self.count * ROWS, dtype=torch.int32)
        places[blocks.order.flatten().long()] = torch.arange(self.count * ROWS, dtype=torch.int32)
        places[-1] = self.count * ROWS  # padding is in no block
        self.register_buffer("codes", codes[order].transpose(1, 2).flatten(1).contiguous())  # (C, D S)
        self.register_buffer("scale", scale[order])  # (C, S)
        self.register_buffer("bias", biases.flatten(0, 1).contiguous())  # (2 C, S)
        self.register_buffer("tops", biases.amax(2))  # (2, C)
        self.register_buffer("means", reaches.means.T.contiguous())
        self.register_buffer("variances", reaches.variances.T.contiguous())
        self.register_buffer("basis", blocks.basis)
        self.register_buffer("places", places[:, None])
        self.register_buffer("order", blocks.order.flatten()[:, None])
        self.register_buffer("sizes", (order < self.n_items).sum(1).float())

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Vectors float32 ``(B, L, D)`` of rows ``(B, L)``."""
        found: torch.Tensor = self.rows(rows)
        return found

    def best(
        self, vectors: torch.Tensor, filled: torch.Tensor, exclude_rows: torch.Tensor, candidates: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The best items of the blocks that reach highest.

        Args:
            vectors: User vectors float32 ``(B, D)``.
            filled: 1 for users with a history, else 0, float32 ``(B, 1)``.
            exclude_rows: int64 ``(B, X)``, padded with I; may repeat rows.
            candidates: K.

        Returns:
            Rows int64 ``(B, K)`` and scores float32 ``(B, K)``, best first; ties go to the lower row. Scores are those
            of the looked-up rows. ``<= MASKED`` marks no candidate, which only fewer than K allowed items lead to: a
            block without any is never chosen, and at least K blocks are.
        """
        places = F.embedding(exclude_rows.sort(1).values, self.places).squeeze(2).long()  # (B, X)
        reach = torch.where(self._free(exclude_rows, places) > 0, self._reaches(vectors, filled), MASKED)
        chosen = torch.topk(reach, self.probes, dim=1).indices  # (B, P)
        empty = (1 - filled).long() * self.count  # (B, 1)
        allowed = self._mask(self._products(vectors, chosen, chosen + empty), chosen, places)
        near, slots = torch.topk(allowed, min(candidates + self.spare, self.probes * ROWS), dim=1)
        at = chosen.gather(1, slots // ROWS) * ROWS + slots % ROWS  # among all places
        rows, by_row = F.embedding(at, self.order).squeeze(2).long().sort(1)  # ties go to the lower row
        near, at = near.gather(1, by_row), at.gather(1, by_row)
        bias = F.embedding(at + empty * ROWS, self.bias.reshape(-1, 1)).squeeze(2)
        exact = (self(rows) @ vectors.unsqueeze(2)).squeeze(2) + bias
        scores, kept = torch.topk(torch.where(near > MASKED / 2, exact, near), candidates, dim=1)
        return rows.gather(1, kept), scores

    def _reaches(self, vectors: torch.Tensor, filled: torch.Tensor) -> torch.Tensor:
        spread = torch.sqrt((vectors @ self.basis).square() @ self.variances)
        tops = torch.where(filled > 0, self.tops[:1], self.tops[1:])
        return vectors @ self.means + SPREADS * spread + tops  # (B, C)

    def _free(self, exclude_rows: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """Items of each block that are not excluded ``(B, C)``; places are in the order of rows, repeats together."""
        before = torch.cat([torch.full_like(places[:, :1], -1), places[:, :-1]], 1)
        counted = (places != before).float()
        none = torch.zeros(exclude_rows.shape[0], self.count + 1)
        return self.sizes - none.scatter_add(1, places // ROWS, counted)[:, : self.count]

    def _products(self, vectors: torch.Tensor, chosen: torch.Tensor, biased: torch.Tensor) -> torch.Tensor:
        """Scores ``(B, P S)`` by 7-bit codes."""
        codes = F.embedding(chosen, self.codes).unflatten(2, (-1, ROWS))  # (B, P, D, S)
        step = (vectors.abs().amax(1, keepdim=True) / LARGEST_CODE).clamp(min=1e-30)
        small = torch.round(vectors / step)[:, None, None, :]  # (B, 1, 1, D)
        counts = _integer_products(small, codes).squeeze(2)  # (B, P, S)
        scores = counts * (step[:, :, None] * F.embedding(chosen, self.scale)) + F.embedding(biased, self.bias)
        return scores.flatten(1)

    def _mask(self, scores: torch.Tensor, chosen: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """Scores ``(B, P S + 1)`` with what is excluded ``MASKED``, and so is the last one."""
        turns = torch.full((chosen.shape[0], self.count + 1), self.probes)
        turns = turns.scatter(1, chosen, torch.arange(self.probes).expand(chosen.shape[0], -1))
        turn = turns.gather(1, places // ROWS)  # (B, X); P where the block is not chosen
        slots = (turn * ROWS + places % ROWS).clamp(max=self.probes * ROWS)
        padded = torch.cat([scores, torch.full_like(scores[:, :1], MASKED)], 1)
        return padded.scatter(1, slots, MASKED)


def _integer_products(small: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
    """Products float32 ``(B, P, 1, S)`` of whole numbers ``(B, 1, 1, D)`` with codes ``(B, P, D, S)``."""
    if not torch.compiler.is_exporting():
        return small @ codes.float()
    counts: torch.Tensor = torch.onnx.ops.symbolic(
        "MatMulInteger",
        ((small + 128).to(torch.uint8), codes, torch.tensor(128, dtype=torch.uint8)),
        dtype=torch.int32,
        shape=(codes.shape[0], codes.shape[1], 1, codes.shape[3]),
        version=20,
    )
    return counts.float()


def _seven_bits(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """int8 codes ``(N, D)`` of at most ``LARGEST_SAFE``, and the scale of each row ``(N,)``."""
    scale = values.abs().amax(1).clamp(min=1e-30) / LARGEST_SAFE
    return (values / scale[:, None]).round().to(torch.int8), scale

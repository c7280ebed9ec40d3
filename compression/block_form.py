"""The form of a large table in an ONNX Runtime graph that reads a few of its blocks, see ``compression.blocks``."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from compression.block_reach import Reaches, integer_products, seven_bits, whole_numbers
from compression.blocks import ROWS, Blocks
from compression.forms import IntegerTable
from compression.quantize import Quantized
from core.tensors import MASKED


class BlockTable(nn.Module):
    """A table in blocks, scanned in three steps: reaches of all blocks, 7-bit products in the best P, exact scores.

    Behind the C blocks stands one of padding alone: what is in no block lies there.

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
    places: torch.Tensor
    order: torch.Tensor
    sizes: torch.Tensor

    def __init__(
        self, table: Quantized, blocks: Blocks, item_bias: torch.Tensor, empty_bias: torch.Tensor, spare: int = 64
    ) -> None:
        super().__init__()
        values = table.values()
        n_items, self.count, self.probes, self.spare = len(values) - 1, len(blocks.order), blocks.probes, spare
        order = torch.cat([blocks.order, torch.full((1, ROWS), n_items, dtype=torch.int32)])  # (C + 1, S)
        rows = order.long()
        self.rows = IntegerTable(table)
        self.reaches = Reaches(values, order, blocks.basis)
        codes, scale = seven_bits(values)
        biases = torch.stack([item_bias, empty_bias])[:, rows]  # (2, C + 1, S)
        places = torch.empty(n_items + 1, dtype=torch.int32)
        places[rows.flatten()] = torch.arange(order.numel(), dtype=torch.int32)
        places[n_items] = self.count * ROWS
        self.register_buffer("codes", codes[rows].transpose(1, 2).flatten(1).contiguous())  # (C + 1, D S)
        self.register_buffer("scale", scale[rows])  # (C + 1, S)
        self.register_buffer("bias", biases.flatten(0, 1).contiguous())  # (2 C + 2, S)
        self.register_buffer("tops", biases.amax(2))  # (2, C + 1)
        self.register_buffer("places", places[:, None])
        self.register_buffer("order", order)
        self.register_buffer("sizes", (rows < n_items).sum(1).float())

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
            block without any is chosen after all others, and at least K blocks are, or all.
        """
        empty = (filled == 0).long()  # (B, 1)
        places = F.embedding(exclude_rows.sort(1).values, self.places).squeeze(2).long()  # (B, X)
        at_block = torch.div(places, ROWS, rounding_mode="trunc")
        reach = self.reaches(vectors) + F.embedding(empty.squeeze(1), self.tops)
        reach = torch.where(self._free(places, at_block) > 0, reach, MASKED)
        chosen = torch.topk(reach, self.probes, dim=1).indices  # (B, P)
        bias = F.embedding(chosen + empty * (self.count + 1), self.bias)  # (B, P, S)
        allowed = self._mask(self._products(vectors, chosen) + bias, chosen, places, at_block)
        near, slots = torch.topk(allowed, min(candidates + self.spare, self.probes * ROWS), dim=1)
        rows = F.embedding(chosen, self.order).flatten(1).gather(1, slots).long()
        rows, by_row = torch.topk(rows, rows.shape[1], dim=1, largest=False)  # so that ties go to the lower row
        near, slots = near.gather(1, by_row), slots.gather(1, by_row)
        exact = (self(rows) @ vectors.unsqueeze(2)).squeeze(2) + bias.flatten(1).gather(1, slots)
        scores, kept = torch.topk(torch.where(near > MASKED / 2, exact, near), candidates, dim=1)
        return rows.gather(1, kept), scores

    def _free(self, places: torch.Tensor, at_block: torch.Tensor) -> torch.Tensor:
        """Items of each block that are not excluded ``(B, C + 1)``; repeats stand together in ``places``."""
        counted = (places != F.pad(places[:, :-1], (1, 0), value=-1)).float()
        none = torch.zeros(places.shape[0], self.count + 1)
        return self.sizes - none.scatter_add(1, at_block, counted)

    def _products(self, vectors: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        """Products ``(B, P, S)`` by 7-bit codes."""
        codes = F.embedding(chosen, self.codes).unflatten(2, (-1, ROWS))  # (B, P, D, S)
        small, step = whole_numbers(vectors)
        counts = integer_products(small[:, None, None, :], codes).squeeze(2)
        return counts * (step[:, :, None] * F.embedding(chosen, self.scale))

    def _mask(
        self, scores: torch.Tensor, chosen: torch.Tensor, places: torch.Tensor, at_block: torch.Tensor
    ) -> torch.Tensor:
        """Scores ``(B, P S)`` of ``(B, P, S)`` with what is excluded ``MASKED``."""
        turns = torch.full((chosen.shape[0], self.count + 1), self.probes)
        turns = turns.scatter(1, chosen, torch.arange(self.probes).expand(chosen.shape[0], -1))
        turn = turns.gather(1, at_block)  # (B, X); P where the block is not chosen
        slots = (turn * ROWS + (places - at_block * ROWS)).clamp(max=self.probes * ROWS)
        return F.pad(scores.flatten(1), (0, 1)).scatter(1, slots, MASKED)[:, :-1]  # the last is for all not chosen

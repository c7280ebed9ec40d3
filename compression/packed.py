"""Tables and columns of a compressed recall model: as they are stored, and the forms that they take in a graph.

Forms for ``onnxruntime``: *unpacked* turns the codes into float32 once, when the session loads (ONNX Runtime folds
constants), which is fastest for small catalogues; *integer* keeps int8 in memory, gathers before it dequantizes and
scans with MatMulInteger. For ``tensorrt``: packed int32 words, unpacked by arithmetic after the gather, and
DequantizeLinear before the product.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from compression.block_form import BlockTable
from compression.blocks import ROWS, Blocks
from compression.candidate import Stored
from compression.forms import IntegerTable, MaskedColumn, PortableTable, UnpackedTable
from compression.quantize import Quantized, pack_nibbles, unpack_nibbles
from compression.tier_form import UnpackedTiers
from compression.tiers import Tiered, popularity_order, tier_sizes

INTEGER_FROM_CELLS = 1_000_000
"""Tables with more cells than this are scanned as integers: below, one small float product is as fast and simpler."""


@dataclass(frozen=True)
class PackedTable:
    """A quantized table, see ``training.models.recall_base.PackedPart``."""

    table: Quantized

    def served(self, flavour: str, exact: bool) -> nn.Module:
        """The table's form in a graph."""
        if flavour == "tensorrt":
            return PortableTable(self.table)
        integer = not exact and self.table.codes.numel() > INTEGER_FROM_CELLS
        return IntegerTable(self.table) if integer else UnpackedTable(self.table)

    def values(self) -> torch.Tensor:
        """float32 ``(I + 1, D)``."""
        return self.table.values()

    def stored(self, name: str) -> dict[str, Stored]:
        """As it lies in the file, by tensor name."""
        codes = pack_nibbles(self.table.codes) if self.table.bits == 4 else self.table.codes
        return {
            f"{name}.codes": Stored(codes, "tables"),
            f"{name}.scale": Stored(self.table.scale, "scales"),
            f"{name}.zero": Stored(self.table.zero, "scales"),
        }

    def facts(self) -> dict[str, Any]:
        """What :meth:`read` needs beside the tensors."""
        return {"bits": self.table.bits, "axis": self.table.axis, "dimension": self.table.codes.shape[1]}

    @classmethod
    def read(cls, name: str, tensors: Mapping[str, torch.Tensor], facts: Mapping[str, Any]) -> PackedTable:
        """The table that was stored under ``name``."""
        codes = tensors[f"{name}.codes"]
        if facts["bits"] == 4:
            codes = unpack_nibbles(codes, facts["dimension"])
        if codes.dtype != torch.uint8 or codes.shape[1] != facts["dimension"]:
            raise ValueError(f"{name}.codes is {codes.dtype} {tuple(codes.shape)}, not {facts['dimension']} of uint8")
        return cls(Quantized(codes, tensors[f"{name}.scale"], tensors[f"{name}.zero"], facts["bits"], facts["axis"]))


@dataclass(frozen=True)
class PackedTiers:
    """A table in tiers of popularity, which is read off the model's own ``empty_bias``.

    Attributes:
        table: Codes.
        popularity: float16 ``(I,)``, the column as it is stored.
    """

    table: Tiered
    popularity: torch.Tensor

    def served(self, flavour: str, exact: bool) -> nn.Module:
        """The table's form in a graph: bits only where it is unpacked at load, one byte per value elsewhere."""
        if flavour == "tensorrt":
            return PortableTable(self.table.quantized())
        cells = len(self.table.order) * len(self.table.columns)
        integer = not exact and cells > INTEGER_FROM_CELLS
        return IntegerTable(self.table.quantized()) if integer else UnpackedTiers(self.table, self.popularity)

    def values(self) -> torch.Tensor:
        """float32 ``(I + 1, D)``."""
        return self.table.values()

    def stored(self, name: str) -> dict[str, Stored]:
        """As it lies in the file, by tensor name."""
        return {
            f"{name}.planes": Stored(torch.cat(self.table.planes), "tables"),
            f"{name}.row_scale": Stored(self.table.row_scale, "scales"),
            f"{name}.scale_range": Stored(self.table.scale_range, "scales"),
            f"{name}.columns": Stored(self.table.columns, "scales"),
        }

    def facts(self) -> dict[str, Any]:
        """What :meth:`read` needs beside the tensors."""
        return {"tiers": list(self.table.widths), "rows": len(self.table.order), "dimension": len(self.table.columns)}

    @classmethod
    def read(cls, name: str, tensors: Mapping[str, torch.Tensor], facts: Mapping[str, Any]) -> PackedTiers:
        """The table that was stored under ``name``."""
        popularity = tensors[name.rpartition(".")[0] + "." * ("." in name) + "empty_bias"]
        order = popularity_order(HalfColumn(popularity).restored())
        sizes = [
            bits * -(-rows * facts["dimension"] // 8)
            for rows, bits in zip(tier_sizes(facts["rows"]), facts["tiers"], strict=True)
        ]
        planes = tensors[f"{name}.planes"]
        if len(order) != facts["rows"] or len(planes) != sum(sizes):
            raise ValueError(f"{name}.planes holds {len(planes):,} bytes for {len(order):,} rows, not {sum(sizes):,}")
        row_scale, scale_range, columns = (
            tensors[f"{name}.{part}"] for part in ("row_scale", "scale_range", "columns")
        )
        first, second, third, fourth = facts["tiers"]
        widths = (first, second, third, fourth)
        return cls(Tiered(torch.split(planes, sizes), row_scale, scale_range, columns, order, widths), popularity)


@dataclass(frozen=True)
class HalfColumn:
    """One float16 number per item; the padding row's ``MASKED`` is no float16 and is added when it is read."""

    values: torch.Tensor

    def served(self, flavour: str, exact: bool) -> nn.Module:
        """The column's form in a graph, the same for all flavours."""
        return MaskedColumn(self.values)

    def restored(self) -> torch.Tensor:
        """float32 ``(I + 1,)``."""
        restored: torch.Tensor = MaskedColumn(self.values)()
        return restored


@dataclass(frozen=True)
class PackedBlocks:
    """A table of either kind with its items arranged in blocks.

    Attributes:
        inner: Its codes, in the order of rows.
        blocks: The arrangement.
        item_bias: The model's column of that name as it is stored.
        empty_bias: Likewise.
    """

    inner: PackedTable | PackedTiers
    blocks: Blocks
    item_bias: HalfColumn
    empty_bias: HalfColumn

    def served(self, flavour: str, exact: bool) -> nn.Module:
        """The table's form in a graph: in blocks for ONNX Runtime, unless all scores have to be exact."""
        if exact or flavour == "tensorrt":
            return self.inner.served(flavour, exact)
        table = self.inner.table if isinstance(self.inner, PackedTable) else self.inner.table.quantized()
        return BlockTable(table, self.blocks, self.item_bias.restored(), self.empty_bias.restored())

    def values(self) -> torch.Tensor:
        """float32 ``(I + 1, D)``."""
        return self.inner.values()

    def stored(self, name: str) -> dict[str, Stored]:
        """As it lies in the file, by tensor name."""
        arranged = {
            f"{name}.order": Stored(self.blocks.order, "columns"),
            f"{name}.basis": Stored(self.blocks.basis, "dense"),
        }
        return self.inner.stored(name) | arranged

    def facts(self) -> dict[str, Any]:
        """What :meth:`read` needs beside the tensors."""
        return self.inner.facts() | {"blocks": {"probes": self.blocks.probes, "covered": self.blocks.covered}}

    @classmethod
    def read(cls, name: str, tensors: Mapping[str, torch.Tensor], facts: Mapping[str, Any]) -> PackedBlocks:
        """The table that was stored under ``name``."""
        inner = (PackedTiers if "tiers" in facts else PackedTable).read(name, tensors, facts)
        prefix = name.rpartition(".")[0] + "." * ("." in name)
        item_bias, empty_bias = (HalfColumn(tensors[prefix + column]) for column in ("item_bias", "empty_bias"))
        order, probes, n_items = tensors[f"{name}.order"], facts["blocks"]["probes"], len(item_bias.values)
        held = order.flatten().sort().values
        whole = held.numel() == -(-n_items // ROWS) * ROWS and torch.equal(held[:n_items].long(), torch.arange(n_items))
        if not whole or bool((held[n_items:] != n_items).any()) or not 0 < probes <= len(order):
            raise ValueError(
                f"{name}.order {tuple(order.shape)} does not arrange {n_items:,} items in blocks of {ROWS}"
            )
        blocks = Blocks(order, tensors[f"{name}.basis"], probes, facts["blocks"]["covered"])
        return cls(inner, blocks, item_bias, empty_bias)


Part = PackedTable | PackedTiers | PackedBlocks | HalfColumn


def read_table(
    name: str, tensors: Mapping[str, torch.Tensor], facts: Mapping[str, Any]
) -> PackedTable | PackedTiers | PackedBlocks:
    """The packed table of any kind that was stored under ``name``."""
    if "blocks" in facts:
        return PackedBlocks.read(name, tensors, facts)
    kind = PackedTiers if "tiers" in facts else PackedTable
    return kind.read(name, tensors, facts)

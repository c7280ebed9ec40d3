"""What items are made of, beside their codes: text, and dense vectors such as those of images."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

TEXT = "text"
DENSE = "dense:"
"""Columns of the file: the text, and each dense block under its name behind this prefix."""


@dataclass(frozen=True)
class DenseBlock:
    """One modality as vectors, for example those of an image encoder.

    Attributes:
        vectors: float32 ``(I, n)``; zero where missing.
        present: bool ``(I,)``.
    """

    vectors: np.ndarray
    present: np.ndarray


@dataclass(frozen=True)
class ItemContent:
    """Content of all items by row.

    Attributes:
        texts: Object array ``(I,)`` of str, "" where an item has no text.
        blocks: Dense modalities by column name.
    """

    texts: np.ndarray
    blocks: dict[str, DenseBlock] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.texts)

    def save(self, path: Path) -> None:
        """Writes one Parquet file: a column of text, a column of lists per block, null where missing."""
        columns: dict[str, pa.Array] = {TEXT: pa.array([text or None for text in self.texts], pa.string())}
        for name, block in self.blocks.items():
            flat = pa.array(block.vectors[block.present].astype(np.float32).reshape(-1))
            offsets = np.append(0, np.cumsum(block.present)) * block.vectors.shape[1]
            # lists of free length: Parquet of pyarrow 25 does not read back fixed ones that are null
            columns[f"{DENSE}{name}"] = pa.LargeListArray.from_arrays(
                pa.array(offsets), flat, mask=pa.array(~block.present)
            )
        pq.write_table(pa.table(columns), path, compression="zstd")

    @classmethod
    def load(cls, path: Path) -> ItemContent:
        """Reads what ``save`` wrote."""
        table = pq.read_table(path)
        texts = table[TEXT].fill_null("").to_numpy(zero_copy_only=False)
        blocks = {
            name.removeprefix(DENSE): _block(table[name].combine_chunks())
            for name in table.column_names
            if name != TEXT
        }
        return cls(np.asarray(texts, dtype=object), blocks)

    @classmethod
    def none(cls, n_items: int) -> ItemContent:
        """Items of which nothing is known."""
        return cls(np.full(n_items, "", dtype=object))


def _block(lists: pa.LargeListArray) -> DenseBlock:
    present = np.asarray(lists.is_valid().to_numpy(zero_copy_only=False), dtype=bool)
    flat = lists.flatten().to_numpy(zero_copy_only=False)
    vectors = np.zeros((len(lists), max(1, len(flat) // max(1, int(present.sum())))), dtype=np.float32)
    vectors[present] = flat.reshape(int(present.sum()), vectors.shape[1])
    return DenseBlock(vectors, present)

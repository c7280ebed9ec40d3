"""Columns of vectors: a Parquet list of floating numbers is one modality of an item, such as its image's vector."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from core.content import DenseBlock, ItemContent
from core.errors import DataError
from training.data.cells import is_text


def is_dense(type_: pa.DataType) -> bool:
    """Whether a column holds vectors: lists of floating numbers. Lists of anything else are tags."""
    lists = pa.types.is_list(type_) or pa.types.is_large_list(type_) or pa.types.is_fixed_size_list(type_)
    return bool(lists and pa.types.is_floating(type_.value_type))


def dense_columns(columns: pa.Table) -> tuple[str, ...]:
    """Names of the columns of vectors."""
    return tuple(field.name for field in columns.schema if is_dense(field.type))


def read_content(columns: pa.Table, rows: np.ndarray, total: int, texts: tuple[str, ...], where: str) -> ItemContent:
    """Text and vectors of all items.

    Args:
        columns: Attribute columns ``(n,)``.
        rows: Where each of the n rows belongs, int64.
        total: Rows of the result; the others have no content.
        texts: Columns of prose, joined by line breaks; those that are not there are passed over.
        where: Name of the table, for messages.

    Raises:
        DataError: A column of vectors has vectors of several lengths, or numbers that are not finite.
    """
    content = np.full(total, "", dtype=object)
    found = [name for name in texts if name in columns.column_names and is_text(columns[name].type)]
    if found:
        parts = [pc.fill_null(columns[name].cast(pa.string()), "").to_pylist() for name in found]
        content[rows] = ["\n".join(filter(None, map(str.strip, cells))) for cells in zip(*parts, strict=True)]
    blocks = {name: _block(columns[name], name, rows, total, where) for name in dense_columns(columns)}
    return ItemContent(content, blocks)


def _block(column: pa.ChunkedArray, name: str, rows: np.ndarray, total: int, where: str) -> DenseBlock:
    lists = column.combine_chunks()
    lists = lists.cast(pa.large_list(pa.float64()))
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    given = lengths > 0  # an empty vector is a missing one
    widths = np.unique(lengths[given])
    if len(widths) > 1:
        raise DataError(
            "vectors of several lengths in one column",
            where=f"{where}, column {name}",
            expected="one length throughout, null where an item has none",
            found=", ".join(map(str, widths[:5])),
        )
    width = int(widths[0]) if len(widths) else 1
    flat = np.asarray(pc.list_flatten(lists).to_numpy(zero_copy_only=False), dtype=np.float32).reshape(-1, width)
    broken = np.flatnonzero(~np.isfinite(flat).all(1))
    if len(broken):
        raise DataError(
            "a vector holds a number that is not finite",
            where=f"{where}, row {int(np.flatnonzero(given)[broken[0]]) + 1}, column {name}",
            expected="finite numbers; null where an item has no vector",
            found=str(flat[broken[0]][~np.isfinite(flat[broken[0]])][0]),
        )
    vectors, present = np.zeros((total, width), dtype=np.float32), np.zeros(total, dtype=bool)
    vectors[rows[given]], present[rows[given]] = flat, True
    return DenseBlock(vectors, present)

"""Text and columns of vectors become the content of items."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.dataset import load_dataset
from core.errors import DataError
from tests.unit.data.tables import TEN, build, write_events


def with_items(folder: Path, columns: dict[str, pa.Array], **data: object) -> object:
    path = folder / "items.parquet"
    pq.write_table(pa.table(columns), path)
    return load_dataset(build(folder, write_events(folder, TEN), items=path, **data))


def test_lists_of_floats_become_a_block_and_missing_ones_are_marked(tmp_path: Path) -> None:
    image = pa.array([[1.0, 2.0], None, [], [3.0, 4.0]], pa.list_(pa.float32()))
    dataset = with_items(tmp_path, {"item_id": ["i0", "i1", "i2", "cold"], "image": image})
    block = dataset.item_content.blocks["image"]
    rows = [dataset.items.row(name) for name in ("i0", "cold")]
    np.testing.assert_array_equal(block.vectors[rows], [[1, 2], [3, 4]])
    assert block.present.sum() == 2
    assert not block.vectors[~block.present].any()
    assert not dataset.item_features.columns


def test_lists_of_text_stay_tags(tmp_path: Path) -> None:
    tags = pa.array([["a", "b"], ["a"], ["b"]])
    dataset = with_items(tmp_path, {"item_id": ["i0", "i1", "i2"], "tags": tags})
    assert not dataset.item_content.blocks
    assert dataset.item_features.columns[0].kind == "tags"


@pytest.mark.parametrize("cells", [[[1.0], [1.0, 2.0]], [[1.0], [float("nan")]]])
def test_vectors_of_several_lengths_or_without_finite_numbers_are_refused(tmp_path: Path, cells: list) -> None:
    with pytest.raises(DataError, match=r"several lengths|not finite"):
        with_items(tmp_path, {"item_id": ["i0", "i1"], "image": pa.array(cells)})


def test_text_is_the_title_unless_other_columns_are_named(tmp_path: Path) -> None:
    columns = {"item_id": ["i0", "i1"], "title": ["Nail", None], "note": [" long ", "short"]}
    dataset = with_items(tmp_path, columns)
    assert dataset.item_content.texts[[dataset.items.row("i0"), dataset.items.row("i1")]].tolist() == ["Nail", ""]
    dataset = with_items(tmp_path, columns, text_columns=("title", "note"))
    assert dataset.item_content.texts[[dataset.items.row("i0"), dataset.items.row("i1")]].tolist() == [
        "Nail\nlong",
        "short",
    ]

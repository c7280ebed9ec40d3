"""Feature tables on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from core.features import FeatureColumn, FeatureTable


def test_saved_table_loads_equal(tmp_path: Path) -> None:
    columns = (FeatureColumn("größe", "category", 3, 1), FeatureColumn("genres", "tags", 9, 2))
    table = FeatureTable(columns, np.array([[1, 8, 0], [0, 2, 3]], dtype=np.int32))
    table.save(tmp_path / "features.npz")
    loaded = FeatureTable.load(tmp_path / "features.npz")
    assert loaded.columns == columns
    assert loaded.width == 3
    np.testing.assert_array_equal(loaded.codes, table.codes)
    assert loaded.codes.dtype == np.int32


def test_table_without_columns_keeps_its_rows(tmp_path: Path) -> None:
    FeatureTable((), np.zeros((5, 0), dtype=np.int32)).save(tmp_path / "none.npz")
    loaded = FeatureTable.load(tmp_path / "none.npz")
    assert loaded.columns == ()
    assert loaded.codes.shape == (5, 0)
    assert loaded.width == 0


def test_file_holds_no_pickled_objects(tmp_path: Path) -> None:
    table = FeatureTable((FeatureColumn("a", "category", 2, 1),), np.ones((2, 1), dtype=np.int32))
    table.save(tmp_path / "features.npz")
    with np.load(tmp_path / "features.npz", allow_pickle=False) as data:
        assert all(data[name].dtype != object for name in data.files)

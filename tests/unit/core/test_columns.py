"""Columns on disk: written front to back, read mapped, passed over in blocks."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from core import columns
from core.columns import ColumnWriter, blocks, counts_of, read_column, release, scratch


def written(path: Path, parts: list[np.ndarray], dtype: str) -> np.ndarray:
    with closing(ColumnWriter(path, dtype)) as writer:
        for part in parts:
            writer.append(part)
    return read_column(path)


@pytest.mark.parametrize("lengths", [[], [0], [3], [1, 0, 2000, 5]])
def test_column_is_what_was_written(tmp_path: Path, lengths: list[int]) -> None:
    parts = [np.arange(length) * 1.5 for length in lengths]
    found = written(tmp_path / "deep" / "column.npy", parts, "float32")
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.concatenate([np.zeros(0), *parts]).astype(np.float32))
    np.testing.assert_array_equal(np.load(tmp_path / "deep" / "column.npy"), found)  # an npy file like any other


def test_blocks_cover_every_row_once_either_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "BLOCK_ROWS", 4)
    column = np.arange(11)
    forwards = [column[part].tolist() for part in blocks(column)]
    assert forwards == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]]
    assert [column[part].tolist() for part in blocks(column, backwards=True)] == forwards[::-1]
    assert not list(blocks(np.zeros(0)))


def test_counts_are_those_of_bincount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "BLOCK_ROWS", 10)
    codes = np.random.default_rng(0).integers(0, 7, 95).astype(np.int32)
    expected = np.bincount(codes, minlength=9)
    np.testing.assert_array_equal(counts_of(written(tmp_path / "codes.npy", [codes], "int32"), 9), expected)


def test_scratch_keeps_what_is_put_there_and_leaves_no_file(tmp_path: Path) -> None:
    array = scratch(tmp_path / "spill", 50_000, np.int32)
    array[:] = np.arange(50_000)
    release(array, array[10:20])
    np.testing.assert_array_equal(array, np.arange(50_000))
    assert not list((tmp_path / "spill").iterdir())


def test_released_pages_leave_the_process(tmp_path: Path) -> None:
    def resident_mb() -> float:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return int(next(line for line in lines if line.startswith("RssFile:")).split()[1]) / 1024

    if not Path("/proc/self/status").is_file():
        pytest.skip("no /proc")
    column = written(tmp_path / "large.npy", [np.zeros(1 << 20)] * 8, "float64")
    release(column)
    before = resident_mb()
    column.sum()
    assert resident_mb() - before > 40  # of 64
    release(column)
    assert resident_mb() - before < 10

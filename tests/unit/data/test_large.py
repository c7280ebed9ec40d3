"""Data larger than memory: whatever the blocks, the artefact is that of the way through memory."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core import columns
from core.artifacts import Artifact, load_artifact
from core.errors import DataError
from core.settings import Settings
from core.spill import spill_folder
from tests.unit.data.tables import HEADER, NOW, Told, assert_same_dataset, build, settings_for, write_events
from training.data import files, large, reading
from training.data.stage import build_dataset

IDS = ("a", "B", " c", "007", "7", "é", "")
TIMES = ("1", "2", "2.5", "1970-01-01T00:00:03Z", "1970-01-01 00:00:04+00:01", "4", "-1", "x", "", "9e15")
VALUES = ("1", "2.5", "", "nan", "-3", "good", "1e39")
KINDS = ("click", "buy", "", " buy")
rows = st.lists(
    st.tuples(*(st.sampled_from(cells) for cells in (IDS, IDS, TIMES, VALUES, KINDS))).map(",".join)
    | st.sampled_from(["a,b", "a,b,1,2,click,more"]),
    max_size=60,
)


@pytest.fixture(autouse=True)
def _tiny_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many of everything that there is one of in small data."""
    monkeypatch.setattr(columns, "BLOCK_ROWS", 7)
    monkeypatch.setattr(files, "BLOCK_BYTES", 200)
    monkeypatch.setattr(reading, "PART_ROWS", 5)
    monkeypatch.setattr(large, "RANGE_ROWS", 4)


@given(rows, st.integers(1, 2), st.integers(1, 2), st.booleans())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_dirty_data_gives_the_same_artefact_or_the_same_error(
    tmp_path_factory: pytest.TempPathFactory, rows: list[str], least_user: int, least_item: int, weighted: bool
) -> None:
    folder = tmp_path_factory.mktemp("both")
    good = [f"u{n % 3},i{n % 5},{n},{n % 4 + 1},click" for n in range(8)]
    events = write_events(folder, good + rows, "user_id,item_id,timestamp,value,event\n")
    options = {"max_bad_share": 1.0, "min_user_events": least_user, "min_item_events": least_item}
    one, other = (_outcome(folder / str(bound), events, bound, options) for bound in (20_000_000, 0))
    if isinstance(one, Artifact) and isinstance(other, Artifact):
        assert_same_dataset(one, other)
    else:
        assert one == other


def _outcome(var: Path, events: Path, bound: int, options: dict[str, object]) -> Artifact | str:
    """The artefact, or the error in words."""
    chosen = settings_for(var, events=events, out_of_core_events=bound, **options)
    try:
        return build_dataset(chosen, now=lambda: NOW)
    except DataError as error:
        return str(error)


def test_kinds_that_count_more_stay_in_either_way(tmp_path: Path) -> None:
    told = ["click", "buy", "buy", "click", ""]
    rows = [f"u{n % 3},i{n % 4},{n // 2},{n % 5},{told[n % 5]}" for n in range(80)]
    events = write_events(tmp_path, rows, "user_id,item_id,timestamp,value,event\n")
    tree = settings_for(tmp_path / "var", events=events).model_dump()
    tree["events"]["kind_weights"] = {"buy": 5.0, "unknown": 0.5}
    made = []
    for bound in (20_000_000, 0):
        tree["data"]["out_of_core_events"] = bound
        made.append(build_dataset(Settings.model_validate(tree), now=lambda: NOW))
    assert_same_dataset(*made)


def test_given_splits_and_no_times_are_kept(tmp_path: Path) -> None:
    names = itertools.cycle(["train", "test", "valid", "train", "train"])
    rows = [f"u{n % 7},i{n % 11},{next(names)}" for n in range(90)]
    artifact = build(tmp_path, write_events(tmp_path, rows, "user_id,item_id,split\n"))
    assert artifact.manifest.tensors["has_times"] is False


def test_folder_of_parquet_files_is_one_table(tmp_path: Path) -> None:
    folder = tmp_path / "events"
    folder.mkdir()
    rows = [(f"u{n * n % 5}", n % 9, 1_000 - n // 3, None if n % 4 == 0 else n % 5) for n in range(70)]
    table = pa.table(
        dict(zip(("user_id", "item_id", "timestamp", "value"), map(list, zip(*rows, strict=True)), strict=True))
    )
    for number, start in enumerate(range(0, 70, 25)):
        pq.write_table(table.slice(start, 25), folder / f"part-{number}.parquet")
    whole = tmp_path / "whole.parquet"
    pq.write_table(table, whole)
    one = build_dataset(settings_for(tmp_path / "one", events=whole), now=lambda: NOW)
    parts = build_dataset(settings_for(tmp_path / "parts", events=folder), now=lambda: NOW)
    report = parts.manifest.metrics["tables"]["events"]
    assert report["rows_read"] == 70
    assert report["name"] == str(folder)
    report["name"] = str(whole)
    assert_same_dataset(one, parts)


def test_files_of_a_folder_with_other_columns_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "events"
    folder.mkdir()
    table = pa.table({"user_id": ["a"], "item_id": ["b"], "timestamp": [1], "value": [1.0]})
    pq.write_table(table, folder / "1.parquet")
    pq.write_table(table.drop_columns(["value"]), folder / "2.parquet")
    with pytest.raises(DataError) as caught:
        build_dataset(settings_for(tmp_path / "var", events=folder))
    assert caught.value.what == "files of one table differ in columns"
    assert "2.parquet" in str(caught.value)


def test_bad_row_of_a_folder_is_told_with_its_file_and_row(tmp_path: Path) -> None:
    folder = tmp_path / "events"
    folder.mkdir()
    for number in range(3):
        ids = [f"u{n}" if (number, n) != (1, 6) else "" for n in range(9)]
        pq.write_table(pa.table({"user_id": ids, "item_id": ids, "timestamp": range(9)}), folder / f"{number}.parquet")
    told = Told()
    build_dataset(settings_for(tmp_path / "var", events=folder, max_bad_share=0.1), told, now=lambda: NOW)
    assert any("1.parquet, row 7, column user_id" in line for line in told.lines)


def test_what_a_crash_left_is_removed_at_the_next_start(tmp_path: Path) -> None:
    var = tmp_path / "var"
    with spill_folder(var) as alive:
        left = var / "spill" / "of-a-killed-process"
        left.mkdir()
        (left / "range-0").write_bytes(b"rest")
        with spill_folder(var) as other:
            assert other != alive
            assert not left.exists()
            assert alive.is_dir()
        assert not other.exists()
    assert not alive.exists()


def test_mapped_columns_are_listed_in_the_manifest(tmp_path: Path) -> None:
    events = write_events(tmp_path, [f"u{n},i,{n},1" for n in range(10)], HEADER)
    made = build_dataset(settings_for(tmp_path / "var", events=events, out_of_core_events=0), now=lambda: NOW)
    load_artifact(made.path).verify()
    assert np.load(made.file("events/user_row.npy"), mmap_mode="r").shape == (10,)
    assert not made.has("events.parquet")

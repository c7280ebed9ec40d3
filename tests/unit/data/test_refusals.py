"""Files that cannot be used: each error names the file, the line, what was expected and what was found."""

from __future__ import annotations

import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.errors import SettingsError
from core.progress import SILENT
from tests.unit.data.tables import HEADER, NOW, TEN, build, refusal, settings_for, write_events
from training.data import files
from training.data.stage import build_dataset

FUTURE = str(int(NOW.timestamp()) + 86_401)


@pytest.mark.parametrize(
    ("row", "column", "found"),
    [
        ("u,i,yesterday,1", "timestamp", "'yesterday'"),
        ("u,i,,1", "timestamp", "''"),
        ("u,i,nan,1", "timestamp", "'nan'"),
        ("u,i,inf,1", "timestamp", "'inf'"),
        ("u,i,-5,1", "timestamp", "'-5'"),
        (f"u,i,{FUTURE},1", "timestamp", f"'{FUTURE}'"),
        ("u,i,2000-13-01,1", "timestamp", "'2000-13-01'"),
        ("u,i,2000-12-31 22:12:40 Europe/Oslo,1", "timestamp", "'2000-12-31 22:12:40 Europe/Oslo'"),
        ("u,i,now,1", "timestamp", "'now'"),
        ("u,i,5,good", "value", "'good'"),
        ("u,i,5,nan", "value", "'nan'"),
        ("u,i,5,1e300", "value", "'1e300'"),
        (",i,5,1", "user_id", "''"),
        ("u,  ,5,1", "item_id", "'  '"),
        ("u,i,5", "any", "3 cells: 'u,i,5'"),
        ("u,i,5,1,7", "any", "5 cells: 'u,i,5,1,7'"),
    ],
)
def test_bad_row_is_refused_with_line_column_expected_and_found(
    tmp_path: Path, row: str, column: str, found: str
) -> None:
    error = refusal(tmp_path, path := write_events(tmp_path, [*TEN[:3], row, *TEN[3:]]))
    assert error.where == f"{path}, line 5, column {column}"
    assert error.found == found
    assert error.expected
    assert "1 of 11 rows are bad" in str(error.next_step)


def test_bad_row_line_counts_blank_lines_quoted_cells_and_ragged_rows(tmp_path: Path) -> None:
    rows = [TEN[0], "", '"u9","i1",5,1', "u,i", TEN[1], "u,i,bad,1"]
    path = write_events(tmp_path, rows)
    error = refusal(tmp_path, path, max_bad_share=0.2)
    assert error.where == f"{path}, line 5, column any"
    report = build(tmp_path, path, max_bad_share=0.5).manifest.metrics["tables"]["events"]
    assert report["dropped"] == {"unreadable timestamp": 1, "wrong number of cells": 1}


@pytest.mark.parametrize("name", ["events.csv", "events.csv.gz"])
def test_bad_row_line_is_right_behind_ragged_rows_and_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(files, "BLOCK_BYTES", 64)
    rows = [f"u{n},i{n},{n},1" for n in range(200)]
    rows[150] = "u,i,bad,1"
    report = build(tmp_path, write_events(tmp_path, rows, name=name), max_bad_share=0.5).manifest.metrics
    assert "line 152, column timestamp" in report["tables"]["events"]["first_bad_row"]
    rows[20] = rows[60] = "u,i"
    error = refusal(tmp_path, write_events(tmp_path, rows, name=name))
    assert "line 22, column any" in str(error)
    assert "1 × unreadable timestamp, 2 × wrong number of cells" in str(error)


def test_unknown_split_line_is_right_behind_ragged_rows_and_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "BLOCK_BYTES", 64)
    rows = [f"u{n},i{n},train" for n in range(200)]
    rows[0] = rows[20] = rows[61] = rows[151] = "u,i"
    rows[150] = "u,i,dev"
    error = refusal(tmp_path, write_events(tmp_path, rows, "user_id,item_id,split\n"))
    assert "line 152, column split" in str(error)


def test_milliseconds_are_suspected_when_times_lie_in_the_future(tmp_path: Path) -> None:
    error = refusal(tmp_path, write_events(tmp_path, ["u,i,978300760000,1"]))
    assert error.found == "'978300760000' (milliseconds?)"


def test_parquet_errors_name_the_row(tmp_path: Path) -> None:
    path = tmp_path / "events.parquet"
    pq.write_table(pa.table({"user_id": ["a", None], "item_id": ["b", "c"], "timestamp": [1, 2]}), path)
    assert refusal(tmp_path, path).where == f"{path}, row 2, column user_id"


@pytest.mark.parametrize("missing", ["user_id", "item_id", "timestamp"])
def test_missing_column_is_refused_with_the_columns_that_are_there(tmp_path: Path, missing: str) -> None:
    header = HEADER.replace(missing, "other")
    error = refusal(tmp_path, write_events(tmp_path, TEN, header))
    assert error.what == f"column {missing} is missing"
    assert "'other'" in str(error.found)
    assert "'value'" in str(error.found)


def test_other_separator_is_suspected_when_there_is_one_column(tmp_path: Path) -> None:
    rows = [row.replace(",", ";") for row in TEN]
    error = refusal(tmp_path, write_events(tmp_path, rows, HEADER.replace(",", ";")))
    assert error.next_step == "separate the columns by commas"


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "file is empty"),
        (b"\n\n", "file is empty"),
        (b"\nu,i,1,1\n", "header is missing"),
        (HEADER.encode(), "table has no rows"),
        (b"user_id,item_id,user_id,timestamp\nu,i,u,1\n", "a column stands twice"),
        (HEADER.encode() + b"u,i,1,1\ncaf\xe9,i,1,1\n", "text is not UTF-8"),
        (b"\x89PNG\r\n\x1a\n\0\0", "text is not UTF-8"),
        ("user_id,item_id,timestamp\nu,i,1\n".encode("utf-16-le"), "not a text file"),
        (HEADER.encode() + b"u\0x,i,1,1\n", "an id holds a control character"),
        (HEADER.encode() + b'"u,i,1,1\nu,i,1,1\nu,i,1,1\n', "a cell runs over several lines"),
        (HEADER.encode() + b'u,"i,1,1\nu,i,1,1\nu,i,1\n', "a cell runs over several lines"),
        (HEADER.encode() + b'u,i,1,"1\nu,i,1,1\nu,i,1,1\n', "a cell runs over several lines"),
        (HEADER.encode() + b'u,i,1,1\n"u\nv",i,1,1\n', "a cell runs over several lines"),
    ],
)
def test_broken_file_is_refused_however_many_bad_rows_are_allowed(tmp_path: Path, content: bytes, what: str) -> None:
    path = tmp_path / "events.csv"
    path.write_bytes(content)
    error = refusal(tmp_path, path, max_bad_share=1.0)
    assert error.what.startswith(what)
    assert str(path) in str(error.where)


def test_wrong_encoding_names_line_and_byte(tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    path.write_bytes(HEADER.encode() + b"u,i,1,1\ncaf\xe9,i,1,1\n")
    error = refusal(tmp_path, path)
    assert error.where == f"{path}, line 3"
    assert error.found == "byte 0xe9"


def test_unclosed_quote_is_refused_when_it_swallows_more_than_a_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "BLOCK_BYTES", 256)
    error = refusal(tmp_path, write_events(tmp_path, [*TEN, '"u,i,1,1', *TEN * 20]), max_bad_share=1.0)
    assert "quote" in str(error)


def test_missing_file_and_folder_are_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path, tmp_path / "none.csv").what == "file not found"
    assert refusal(tmp_path, tmp_path).what == "folder holds no Parquet file"


def test_unknown_ending_is_refused(tmp_path: Path) -> None:
    error = refusal(tmp_path, write_events(tmp_path, TEN, name="events.xlsx"))
    assert error.expected == "a name ending in .csv, .csv.gz or .parquet"


def test_gzip_that_is_none_or_breaks_off_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "events.csv.gz"
    path.write_bytes((HEADER + TEN[0]).encode())
    assert refusal(tmp_path, path).what == "not a gzip file"
    whole = gzip.compress((HEADER + "\n".join(f"u{n},i{n * n},{n},1" for n in range(50_000))).encode())
    path.write_bytes(whole[: len(whole) // 2])
    assert refusal(tmp_path, path).what == "file is damaged or cannot be read"


def test_parquet_that_is_none_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path, write_events(tmp_path, TEN, name="events.parquet")).what.startswith("not a Parquet file")


@pytest.mark.parametrize(
    ("column", "cells", "what"),
    [
        ("user_id", [1.0, 2.0], "user_id is neither text nor integer"),
        ("timestamp", [True, False], "timestamp has a wrong type"),
        ("value", [True, False], "value has a wrong type"),
        ("event", [1.5, 2.5], "event has a wrong type"),
        ("split", [0, 1], "unknown split"),
    ],
)
def test_parquet_column_of_a_wrong_type_is_refused(tmp_path: Path, column: str, cells: list[object], what: str) -> None:
    path = tmp_path / "events.parquet"
    table = {"user_id": ["a", "b"], "item_id": ["a", "b"], "timestamp": [1, 2], column: cells}
    pq.write_table(pa.table(table), path)
    assert refusal(tmp_path, path, max_bad_share=1.0).what == what


def test_unknown_split_is_refused_with_its_line(tmp_path: Path) -> None:
    path = write_events(tmp_path, ["u,i,train", "u,j,dev"], "user_id,item_id,split\n")
    error = refusal(tmp_path, path, max_bad_share=1.0)
    assert (error.where, error.found) == (f"{path}, line 3, column split", "'dev'")
    assert error.expected == "train | valid | test"


def test_data_without_train_events_is_refused(tmp_path: Path) -> None:
    error = refusal(tmp_path, write_events(tmp_path, ["u,i,test"], "user_id,item_id,split\n"))
    assert error.what == "no event in the train split"


def test_all_bad_rows_are_refused_even_when_allowed(tmp_path: Path) -> None:
    assert refusal(tmp_path, write_events(tmp_path, ["u,i,x,1"] * 3), max_bad_share=1.0).what == "no usable event"
    assert refusal(tmp_path, write_events(tmp_path, ["u,i"] * 3), max_bad_share=1.0).what == "no usable event"


def test_core_that_leaves_nothing_is_refused(tmp_path: Path) -> None:
    error = refusal(tmp_path, write_events(tmp_path, TEN), min_item_events=2)
    assert error.what == "no event is left"
    assert "2 per item" in str(error.found)


def test_items_table_is_checked_like_events(tmp_path: Path) -> None:
    events, items = write_events(tmp_path, TEN), tmp_path / "items.csv"
    items.write_text("id,title\n1,A\n")
    assert refusal(tmp_path, events, items=items).what == "column item_id is missing"
    items.write_text('item_id,title\n1,"A\n2,B\n')
    assert refusal(tmp_path, events, items=items).what == "a quoted cell is never closed"
    items.write_text("item_id,title\n1,A\n,B\n")
    assert refusal(tmp_path, events, items=items).where == f"{items}, line 3, column item_id"


@pytest.mark.parametrize(
    ("data", "key"),
    [
        ({"source": "movielens"}, "data.source"),
        ({"events": None}, "data.events"),
        ({"source": "synthetic", "events": "events.csv"}, "data.source"),
        ({"train_until": 0.9, "valid_until": 0.8}, "data.train_until"),
        ({"source": "synthetic", "synthetic_users": 10, "synthetic_items": 10}, "data.synthetic_events"),
    ],
)
def test_contradicting_settings_are_named(tmp_path: Path, data: dict[str, object], key: str) -> None:
    with pytest.raises(SettingsError) as caught:
        build_dataset(settings_for(tmp_path, **data), SILENT)
    assert key in str(caught.value.where)

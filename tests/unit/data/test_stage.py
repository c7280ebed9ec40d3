"""The dataset artefact, end to end from small files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.artifacts import load_artifact
from core.dataset import load_dataset
from core.errors import DataError, SettingsError
from core.progress import SILENT
from core.sections import EventSettings
from tests.unit.data.tables import NOW, TEN, Told, build, settings_for, write_events
from training.data.stage import build_dataset


def test_ids_are_read_as_text_exactly(tmp_path: Path) -> None:
    ids = ["007", "7", "1.0", "1e3", "NULL", "nan", " x", "é", "0x1", "True"]
    rows = [f"{text},{text},{n},1" for n, text in enumerate(ids)]
    dataset = load_dataset(build(tmp_path, write_events(tmp_path, rows)))
    assert set(dataset.users.ids) == set(dataset.items.ids) == set(ids)


def test_times_are_read_from_numbers_and_iso_text(tmp_path: Path) -> None:
    rows = [
        "a,1,978300760,1",
        "a,2,978300760.5,1",
        "a,3,2000-12-31T22:12:41Z,1",
        "a,4,2001-01-01 00:12:42+02:00,1",
        "a,5,2000-12-31T22:12:43,1",
        "a,6,2001-01-01,1",
    ]
    dataset = load_dataset(build(tmp_path, write_events(tmp_path, rows)))
    shifts = dataset.events.timestamps - 978300760
    assert shifts.tolist() == [0, 0.5, 1, 2, 3, 978307200 - 978300760]
    assert dataset.items.ids[dataset.events.item_rows].tolist() == list("123456")


@pytest.mark.parametrize("type_", [pa.timestamp("ms"), pa.timestamp("ns", "Europe/Oslo"), pa.int64(), pa.float64()])
def test_parquet_times_and_integer_ids_are_read(tmp_path: Path, type_: pa.DataType) -> None:
    seconds = pa.array([978300760, 978300761])
    scale = {"timestamp[ms]": 10**3, "timestamp[ns, tz=Europe/Oslo]": 10**9}.get(str(type_), 1)
    times = pa.array([value * scale for value in seconds.to_pylist()]).cast(type_)
    path = tmp_path / "events.parquet"
    pq.write_table(pa.table({"user_id": [5, 6], "item_id": ["a", "b"], "timestamp": times}), path)
    dataset = load_dataset(build(tmp_path, path))
    assert dataset.events.timestamps.tolist() == [978300760, 978300761]
    assert set(dataset.users.ids) == {"5", "6"}


def test_values_are_standardised_by_the_train_split(tmp_path: Path) -> None:
    rows = [f"u,i{n},{n},{value}" for n, value in enumerate([1, 3, "", 1, 3, 1, 3, 1, 3, 100, 200])]
    artifact = build(tmp_path, write_events(tmp_path, rows))
    dataset, facts = load_dataset(artifact), artifact.manifest.tensors
    train = dataset.events.of_splits(("train",))
    assert facts["value_mean"] == pytest.approx(np.nanmean(train.raw_values))
    assert facts["value_std"] == pytest.approx(np.nanstd(train.raw_values))
    assert np.isnan(dataset.events.raw_values[2])
    assert dataset.events.values[2] == 0
    assert dataset.events.values[-1] == pytest.approx((200 - facts["value_mean"]) / facts["value_std"], rel=1e-6)


def test_equal_values_become_zero(tmp_path: Path) -> None:
    artifact = build(tmp_path, write_events(tmp_path, [f"u,i{n},{n},4" for n in range(10)]))
    assert not load_dataset(artifact).events.values.any()
    assert artifact.manifest.tensors["value_std"] == 0


def test_rows_descend_by_train_events_and_ties_ascend_by_id(tmp_path: Path) -> None:
    rows = ["a,z,train", "b,z,train", "a,m,train", "a,c,train", "b,c,test", "c,c,test", "c,b,test", "d,b,valid"]
    dataset = load_dataset(build(tmp_path, write_events(tmp_path, rows, "user_id,item_id,split\n")))
    assert dataset.items.ids.tolist() == ["z", "c", "m", "b"]
    assert dataset.users.ids.tolist() == ["a", "b", "c", "d"]


def test_given_splits_replace_time_and_keep_file_order(tmp_path: Path) -> None:
    rows = ["a,x,test", "a,y,train", "a,z,valid"]
    artifact = build(tmp_path, write_events(tmp_path, rows, "user_id,item_id,split\n"))
    dataset = load_dataset(artifact)
    assert dataset.items.ids[dataset.events.item_rows].tolist() == ["x", "y", "z"]
    assert dataset.events.splits.tolist() == [2, 0, 1]
    assert not dataset.has_times
    assert not dataset.has_values
    assert np.isnan(dataset.events.raw_values).all()
    assert artifact.manifest.tensors["time_boundaries"] is None


def test_event_column_becomes_kinds(tmp_path: Path) -> None:
    rows = ["a,x,1,view", "a,y,2,", "a,z,3, click "]
    dataset = load_dataset(build(tmp_path, write_events(tmp_path, rows, "user_id,item_id,timestamp,event\n")))
    assert dataset.kinds == ("", "click", "view")
    assert dataset.events.kinds.tolist() == [2, 0, 1]
    assert dataset.histories(("train", "valid", "test")).of(0).kinds.tolist() == [1, 0, 2]


def test_pair_with_several_kinds_keeps_the_newest_of_the_heaviest(tmp_path: Path) -> None:
    rows = ["a,x,1,buy,1", "a,x,2,buy,2", "a,x,3,view,3", "a,y,4,view,4", "a,y,5,view,5", "b,x,6,,6"]
    events = write_events(tmp_path, rows, "user_id,item_id,timestamp,event,value\n")
    settings = settings_for(tmp_path / "var", events=events, train_until=0.98, valid_until=0.99)
    weighted = settings.model_copy(update={"events": EventSettings(kind_weights={"buy": 5.0})})
    kept = [
        load_dataset(build_dataset(each, now=lambda: NOW)).events.raw_values.tolist() for each in (settings, weighted)
    ]
    assert kept == [[3, 5, 6], [2, 5, 6]]


def test_weight_of_a_kind_that_the_data_lacks_is_refused(tmp_path: Path) -> None:
    settings = settings_for(tmp_path / "var", events=write_events(tmp_path, TEN))
    with pytest.raises(SettingsError, match=r"no event of this kind[\s\S]*buy"):
        build_dataset(settings.model_copy(update={"events": EventSettings(kind_weights={"buy": 5.0})}), now=lambda: NOW)


def test_kinds_are_unknown_when_there_is_no_event_column(tmp_path: Path) -> None:
    dataset = load_dataset(build(tmp_path, write_events(tmp_path, ["a,x,1,1", "a,y,2,1"])))
    assert dataset.kinds == ("",)
    assert not dataset.events.kinds.any()


def test_too_many_kinds_are_refused(tmp_path: Path) -> None:
    rows = [f"u,i{row},{row},kind-{row}" for row in range(256)]
    with pytest.raises(DataError, match="too many kinds"):
        build(tmp_path, write_events(tmp_path, rows, "user_id,item_id,timestamp,event\n"))


def test_cold_items_and_users_stay_and_dropped_ones_leave(tmp_path: Path) -> None:
    items, users = tmp_path / "items.csv", tmp_path / "users.csv"
    items.write_text("item_id,title\ni0,Zero\ncold,Cold One\nblank,\n")
    users.write_text("user_id,age\nnew,3\n")
    rows = ["u0,i0,1,1", "u1,i0,2,1", "u0,rare,3,1"]
    dataset = load_dataset(build(tmp_path, write_events(tmp_path, rows), items=items, users=users, min_item_events=2))
    assert set(dataset.items.ids) == {"i0", "cold", "blank"}
    assert set(dataset.users.ids) == {"u0", "u1", "new"}
    titles = dict(zip(dataset.items.ids, dataset.titles, strict=True))
    assert titles == {"i0": "Zero", "cold": "Cold One", "blank": "blank"}


def test_title_column_can_have_another_name(tmp_path: Path) -> None:
    items = tmp_path / "items.csv"
    items.write_text("item_id,name,title,colour\ni0,Nail,wrong,red\n")
    artifact = build(tmp_path, write_events(tmp_path, TEN), items=items, title_column="name")
    table = pq.read_table(artifact.file("items.parquet"))
    assert table.column_names == ["item_id", "title", "colour"]
    rows = {row["item_id"]: row for row in table.to_pylist()}
    assert rows["i0"] == {"item_id": "i0", "title": "Nail", "colour": "red"}
    assert rows["i1"] == {"item_id": "i1", "title": "i1", "colour": None}


def test_report_counts_everything_that_was_dropped(tmp_path: Path) -> None:
    header = "user_id,item_id,timestamp,value,mood\n"
    rows = ["u,a,1,1,x", "u,a,2,5,x", "u,b,3,1,x", "v,a,4,1,x", "v,b,5,1,x", "u,bad,x,1,x", "w,a,1,1,x"]
    told = Told()
    settings = settings_for(
        tmp_path / "var", events=write_events(tmp_path, rows, header), max_bad_share=0.2, min_user_events=2
    )
    artifact = build_dataset(settings, told, now=lambda: NOW)
    report = json.loads(artifact.file("report.json").read_text())
    events = report["tables"]["events"]
    assert events["rows_read"] == 7
    assert events["dropped"] == {"unreadable timestamp": 1, "repeat of a (user, item)": 1, "outside the k-core": 1}
    assert events["first_bad_row"].endswith(
        "line 7, column timestamp: expected seconds since 1970 or ISO-8601 (2001-02-03T04:05:06Z), found 'x'"
    )
    assert events["ignored_columns"] == ["mood"]
    assert artifact.manifest.metrics == report
    first_bad_row, summary = told.lines
    assert first_bad_row == f"dropped: {events['first_bad_row']}"
    assert "4 of 7 events (dropped: 1 unreadable timestamp, 1 repeat" in summary


def test_repeated_attribute_ids_keep_the_first_row_and_are_counted(tmp_path: Path) -> None:
    items = tmp_path / "items.csv"
    items.write_text("item_id,title,\ni0,First,0\ni0,Second,1\n")
    artifact = build(tmp_path, write_events(tmp_path, TEN), items=items)
    dataset = load_dataset(artifact)
    assert dataset.titles[dataset.items.row("i0")] == "First"
    table = artifact.manifest.metrics["tables"]["items"]
    assert table["dropped"] == {"repeated item_id": 1}
    assert table["ignored_columns"] == [""]


def test_artifact_can_be_loaded_and_verified(tmp_path: Path) -> None:
    artifact = build(tmp_path, write_events(tmp_path, TEN, name="events.csv.gz"))
    load_artifact(artifact.path).verify()
    facts = artifact.manifest.tensors
    assert (facts["n_events"], facts["n_users"], facts["n_items"]) == (10, 4, 10)
    assert facts["split_counts"] == {"train": 8, "valid": 1, "test": 1}
    assert facts["time_boundaries"] == {"train": pytest.approx(107.2), "valid": pytest.approx(108.1)}
    table = pq.read_table(artifact.file("events.parquet"))
    assert [str(kind) for kind in table.schema.types] == [
        "int32",
        "int32",
        "double",
        "float",
        "float",
        "uint8",
        "uint8",
    ]


def test_two_hundred_thousand_synthetic_events_build(tmp_path: Path) -> None:
    settings = settings_for(
        tmp_path, source="synthetic", synthetic_events=200_000, synthetic_users=5_000, synthetic_items=1_000
    )
    dataset = load_dataset(build_dataset(settings, SILENT))
    assert len(dataset.events) == 200_000
    assert (np.diff(dataset.events.timestamps) >= 0).all()
    counts = np.bincount(dataset.events.of_splits(("train",)).item_rows, minlength=dataset.n_items)
    assert (np.diff(counts) <= 0).all()

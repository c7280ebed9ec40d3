"""The section [features]: columns as the settings want them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pytest

from core.dataset import load_dataset
from core.errors import SettingsError
from core.sections import FeatureSettings, FeatureSpec, Statistic
from core.settings import load_settings
from pipeline.settings_file import render
from tests.unit.data.tables import NOW, TEN, settings_for, write_events
from training.data.derive import derive_columns
from training.data.stage import build_dataset
from training.models.ranker_shape import STATISTICS

TABLE = pa.table(
    {
        "title": ["Toy Story (1995)", "2001: A Space Odyssey (1968)", "Untitled", None],
        "price": ["1", "10", "100", ""],
        "zip": ["00501", "10001", "10001", "90210"],
        "genres": ["a|b", "a", "", "a|c"],
        "added": ["1999-12-31T23:00:00Z", "2000-01-01", None, "2024-02-29"],
    }
)


def made(*specs: dict[str, Any], **more: Any) -> dict[str, list[Any]]:
    settings = FeatureSettings(items=tuple(FeatureSpec(**spec) for spec in specs), **more)
    return derive_columns(TABLE, settings, "item", ("title",)).columns.to_pydict()


def refused(*specs: dict[str, Any], **more: Any) -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        made(*specs, **more)
    return caught.value


def test_without_specs_columns_stay_as_they_are() -> None:
    derived = derive_columns(TABLE, FeatureSettings(), "item", ("title",))
    assert derived.columns.equals(TABLE)
    assert derived.leave == ("title",)
    assert not derived.categories


def test_only_named_columns_are_used() -> None:
    assert list(made({"column": "zip", "kind": "category"})) == ["zip"]


def test_year_is_the_last_one_in_the_text() -> None:
    found = made({"column": "title", "kind": "year", "buckets": 0, "name": "year"})
    assert found == {"year": ["1995", "1968", None, None]}


def test_numbers_fall_into_buckets_by_edges_quantiles_or_width() -> None:
    assert made({"column": "price", "kind": "number", "edges": [5, 50]})["price"] == ["..5", "5..50", "50..", None]
    assert made({"column": "price", "kind": "number", "buckets": 2})["price"] == ["..10", "10..", "10..", None]
    even = made({"column": "price", "kind": "number", "buckets": 2, "scale": "linear"})["price"]
    assert even == ["..50.5", "..50.5", "50.5..", None]
    logs = made({"column": "price", "kind": "number", "buckets": 2, "scale": "log"})["price"]
    assert logs[0] != logs[2]
    assert logs[0] == f"..{np.sqrt(2 * 101) - 1:.6g}"


def test_dates_give_their_parts() -> None:
    parts = {part: made({"column": "added", "kind": "date", "part": part})["added"] for part in ("hour", "weekday")}
    assert parts["hour"] == ["23", "0", None, "0"]
    assert parts["weekday"] == ["5", "6", None, "4"]
    assert made({"column": "added", "kind": "date", "part": "month"})["added"] == ["12", "1", None, "2"]


def test_hash_puts_equal_values_into_equal_buckets() -> None:
    found = made({"column": "zip", "kind": "hash", "buckets": 1_000_000})["zip"]
    assert found[1] == found[2] != found[0]
    assert made({"column": "zip", "kind": "hash", "buckets": 2})["zip"][0] in ("h0", "h1")


def test_rare_values_and_tags_become_unknown() -> None:
    assert made({"column": "zip", "kind": "category", "min_count": 2})["zip"] == [None, "10001", "10001", None]
    assert made({"column": "genres", "kind": "tags", "min_count": 2})["genres"][:2] == [["a"], ["a"]]
    assert made({"column": "genres", "kind": "tags"})["genres"][0] == ["a", "b"]


def test_cross_joins_columns_and_features_made_before() -> None:
    year = {"column": "title", "kind": "year", "buckets": 0, "name": "year"}
    found = made(year, {"kind": "cross", "of": ["year", "zip"]})
    assert found["year x zip"] == ["1995 x 00501", "1968 x 10001", None, None]


def test_skipped_columns_are_left_out() -> None:
    assert "zip" not in made(skip_items=("zip",))


def test_unknown_columns_are_named_with_the_closest() -> None:
    error = refused({"column": "genre", "kind": "tags"})
    assert "'genre'" in error.what
    assert "did you mean genres?" in str(error)
    assert "features.items[0]" in str(error)
    assert "features.skip_items" in str(refused(skip_items=("pricee",)))
    assert "did you mean price?" in str(refused({"kind": "cross", "of": ["zip", "prise"]}))


@pytest.mark.parametrize(
    "spec",
    [
        {"column": "zip", "kind": "hash", "buckets": 1},
        {"column": "price", "kind": "number", "edges": [3, 3]},
        {"column": "genres", "kind": "number"},
        {"column": "zip", "kind": "year"},
        {"kind": "cross", "of": ["zip"]},
        {"kind": "category"},
    ],
)
def test_specs_that_cannot_be_carried_out_are_refused(spec: dict[str, Any]) -> None:
    refused(spec)


def test_statistics_that_can_be_named_are_those_of_the_ranker() -> None:
    assert set(get_args(Statistic)) == set(STATISTICS) == set(FeatureSettings().statistics)


def test_specs_reach_the_codes_of_the_dataset(tmp_path: Path) -> None:
    items = tmp_path / "items.csv"
    items.write_text("item_id,title,zip\n" + "".join(f"i{n},T{n} ({1990 + n % 3}),{n % 2}00\n" for n in range(10)))
    settings = settings_for(tmp_path / "var", events=write_events(tmp_path, TEN), items=items)
    specs = ({"column": "title", "kind": "year", "buckets": 0, "name": "year"}, {"column": "zip", "kind": "category"})
    features = FeatureSettings(items=tuple(FeatureSpec(**spec) for spec in specs))
    artifact = build_dataset(settings.model_copy(update={"features": features}), now=lambda: NOW)
    table = load_dataset(artifact).item_features
    assert [(column.name, column.kind, column.cardinality) for column in table.columns] == [
        ("year", "category", 4),
        ("zip", "category", 3),
    ]
    assert (table.codes > 0).all()
    assert artifact.manifest.settings["features"]["items"][0]["kind"] == "year"


def test_settings_with_specs_can_be_written_and_read_back(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('[features]\nitems = [{column = "title", kind = "year"}, {kind = "cross", of = ["a", "b"]}]\n')
    settings = load_settings((file,))
    again = tmp_path / "again.toml"
    again.write_text(render(settings))
    assert load_settings((again,)) == settings

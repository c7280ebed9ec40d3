"""Attribute columns to codes."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from core.features import UNKNOWN, FeatureColumn
from training.data.codes import MOST_CODES, TAG_SLOTS, Fitted, fit_features


def fit(columns: dict[str, object], leave: tuple[str, ...] = ()) -> Fitted:
    table = pa.table(columns)
    return fit_features(table, np.arange(len(table)), len(table), leave)


def test_category_codes_descend_by_frequency_and_blank_is_unknown() -> None:
    fitted = fit({"colour": ["red", "blue", "red", "", None, "green", " "]})
    assert fitted.table.columns == (FeatureColumn("colour", "category", 4, 1),)
    assert fitted.table.codes[:, 0].tolist() == [1, 2, 1, UNKNOWN, UNKNOWN, 3, UNKNOWN]


def test_tags_are_coded_by_frequency_without_repeats() -> None:
    fitted = fit({"genres": ["drama|war", "drama", "war|drama|war", "", "comedy", None]})
    assert fitted.table.columns == (FeatureColumn("genres", "tags", 4, 2),)
    assert fitted.table.codes.tolist() == [[1, 2], [1, 0], [1, 2], [0, 0], [3, 0], [0, 0]]


def test_lists_are_tags() -> None:
    fitted = fit({"genres": pa.array([["a", "b"], None, [], ["b"]], pa.list_(pa.string()))})
    assert fitted.table.codes.tolist() == [[1, 2], [0, 0], [0, 0], [1, 0]]


def test_only_the_most_frequent_tags_fill_the_slots() -> None:
    many = [f"t{n:02d}" for n in range(12)]
    fitted = fit({"tags": ["|".join(reversed(many)), *many * 3]})
    column = fitted.table.columns[0]
    assert (column.width, column.cardinality) == (TAG_SLOTS, 13)
    assert fitted.table.codes[0].tolist() == list(range(1, TAG_SLOTS + 1))


def test_many_numbers_become_ten_buckets_of_like_size() -> None:
    numbers = [str(n) for n in range(1000)]
    fitted = fit({"price": [*numbers, ""]})
    assert fitted.table.columns == (FeatureColumn("price", "number", 11, 1),)
    codes = fitted.table.codes[:, 0]
    assert np.bincount(codes).tolist() == [1, *[100] * 10]
    assert (np.diff(codes[:1000]) >= 0).all()


def test_stray_words_in_a_numeric_column_are_unknown() -> None:
    cells = [str(n % 100) for n in range(200)]
    cells[7] = "unknown"
    fitted = fit({"year": cells})
    assert fitted.table.columns[0].kind == "number"
    assert fitted.table.codes[7, 0] == UNKNOWN


def test_few_numbers_and_booleans_are_categories() -> None:
    fitted = fit({"age": [1, 18, 25] * 10, "adult": [True, False, None] * 10})
    assert [column.kind for column in fitted.table.columns] == ["category", "category"]
    assert [column.cardinality for column in fitted.table.columns] == [4, 3]


def test_dates_become_buckets() -> None:
    days = pa.array(range(100), pa.int32()).cast(pa.date32())
    assert fit({"released": days}).table.columns[0].kind == "number"


def test_leading_zeros_are_text() -> None:
    zips = [f"0{n % 40:04d}" for n in range(400)]
    assert fit({"zip": zips}).table.columns[0] == FeatureColumn("zip", "category", 41, 1)


def test_columns_that_tell_nothing_are_skipped_with_a_reason() -> None:
    urls = [f"https://example.org/{n}" for n in range(50)]
    fitted = fit(
        {"url": urls, "same": ["x"] * 50, "none": [""] * 50, "nothing": pa.nulls(50), "title": urls},
        leave=("title",),
    )
    assert fitted.table.columns == ()
    assert fitted.table.codes.shape == (50, 0)
    assert fitted.skipped == {
        "url": "50 different values in 50 rows",
        "same": "one value throughout",
        "none": "empty",
        "nothing": "type null is not read",
        "title": "shown to people, not an attribute",
    }


def test_cardinality_is_capped_and_the_rest_is_unknown() -> None:
    words = [f"w{n:04d}" for n in range(1_500)]
    fitted = fit({"word": [*words * 2, *words[:999]]})
    assert fitted.table.columns[0].cardinality == MOST_CODES
    codes = fitted.table.codes[:1_500, 0]
    assert sorted(codes[:999]) == list(range(1, 1_000))
    assert not codes[999:].any()


def test_rows_without_attributes_are_unknown() -> None:
    table = pa.table({"colour": ["red", "blue"]})
    fitted = fit_features(table, np.array([3, 1]), 5)
    assert fitted.table.codes[:, 0].tolist() == [0, 1, 0, 2, 0]


cells = st.lists(st.sampled_from(["", "a", "b|c", "c", "d|a|b", "7", None]), min_size=1, max_size=40)


@given(cells)
def test_codes_stay_within_their_cardinality(column: list[str | None]) -> None:
    table = fit({"x": pa.array(column, pa.string())}).table
    assert table.codes.dtype == np.int32
    assert table.codes.shape == (len(column), sum(column.width for column in table.columns))
    for feature in table.columns:
        assert table.codes.min() >= 0
        assert table.codes.max() < feature.cardinality

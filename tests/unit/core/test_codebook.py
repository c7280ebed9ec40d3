"""Values of later requests find the codes of the table that was learned from."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.codebook import Codebook, as_number
from core.features import UNKNOWN
from training.data.codes import Fitted, fit_features

COLOURS = ["red", "red", "green", None]
TAGS = ["a|b", "b|c", "b", ""]
YEARS = [float(year) for year in range(1950, 2050)]


@cache
def learned() -> Fitted:
    table = pa.table({"colour": COLOURS * 25, "tags": TAGS * 25, "year": YEARS})
    return fit_features(table, np.arange(100), 100)


@pytest.fixture
def fitted() -> Fitted:
    return learned()


def test_every_row_is_encoded_as_it_was_learned(fitted: Fitted) -> None:
    unknown = np.full(fitted.table.width, UNKNOWN)
    for row in range(100):
        cells = [f"colour={(COLOURS * 25)[row] or ''}", f"tags={(TAGS * 25)[row]}", f"year={YEARS[row]}"]
        np.testing.assert_array_equal(fitted.codebook.overlay(unknown, cells), fitted.table.codes[row])


def test_unknown_names_values_and_malformed_text_give_no_error(fitted: Fitted) -> None:
    unknown = np.full(fitted.table.width, UNKNOWN)
    given = ["size=3", "colour=blue", "year=soon", "tags=|", "tags", "=", ""]
    assert (fitted.codebook.overlay(unknown, given) == UNKNOWN).all()


def test_unknown_value_replaces_the_known_one(fitted: Fitted) -> None:
    known = fitted.table.codes[0]
    assert fitted.codebook.overlay(known, ["colour=blue"])[fitted.codebook.starts["colour"]] == UNKNOWN
    assert known[fitted.codebook.starts["colour"]] != UNKNOWN


@settings(deadline=None)
@given(st.lists(st.text(max_size=12), max_size=4))
def test_any_text_stays_within_the_codes(texts: list[str]) -> None:
    fitted = learned()
    names = ("colour", "tags", "year")
    codes = fitted.codebook.overlay(fitted.table.codes[1], [f"{name}={text}" for text in texts for name in names])
    start = 0
    for column in fitted.table.columns:
        part = codes[start : start + column.width]
        assert ((part >= 0) & (part < column.cardinality)).all()
        start += column.width


def test_saved_codebook_is_the_same_after_loading(fitted: Fitted, tmp_path: Path) -> None:
    fitted.codebook.save(tmp_path / "codes.json")
    assert Codebook.load(tmp_path / "codes.json") == fitted.codebook


@pytest.mark.parametrize(
    ("text", "number"),
    [("3", 3.0), (" 1e3 ", 1000.0), ("1970-01-02", 86400.0), ("nan", None), ("inf", None), ("", None)],
)
def test_numbers_and_dates_are_read(text: str, number: float | None) -> None:
    assert as_number(text) == number

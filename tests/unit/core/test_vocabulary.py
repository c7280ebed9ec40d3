"""External ids and rows."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.vocabulary import Vocabulary

ids = st.lists(st.text(min_size=1), unique=True)


@given(ids)
def test_ids_and_rows_are_inverse(keys: list[str]) -> None:
    vocabulary = Vocabulary(keys)
    assert vocabulary.rows(keys).tolist() == list(range(len(keys)))
    assert vocabulary.ids[vocabulary.rows(keys)].tolist() == keys
    assert len(vocabulary) == len(keys)


@given(ids, st.lists(st.text()))
def test_unknown_keys_have_row_minus_one(keys: list[str], asked: list[str]) -> None:
    vocabulary = Vocabulary(keys)
    assert vocabulary.rows(asked).tolist() == [keys.index(key) if key in keys else -1 for key in asked]
    assert [key in vocabulary for key in asked] == [key in keys for key in asked]
    assert [vocabulary.row(key) for key in asked] == [keys.index(key) if key in keys else None for key in asked]


@given(ids)
def test_lists_arrays_and_arrow_arrays_give_the_same(keys: list[str]) -> None:
    for form in (keys, np.array(keys, dtype=object), pa.array(keys, pa.string())):
        assert Vocabulary(form).ids.tolist() == keys


@pytest.mark.parametrize("keys", [["a", "a"], [""], ["a", "b", "a"]])
def test_repeated_and_empty_ids_are_refused(keys: list[str]) -> None:
    with pytest.raises(ValueError, match="id"):
        Vocabulary(keys)


def test_ids_cannot_be_written_and_the_source_stays_free() -> None:
    source = np.array(["a", "b"], dtype=object)
    vocabulary = Vocabulary(source)
    source[0] = "z"
    assert vocabulary.ids.tolist() == ["a", "b"]
    with pytest.raises(ValueError, match="read-only"):
        vocabulary.ids[0] = "z"

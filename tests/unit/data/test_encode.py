"""Vocabularies and standardised values."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from training.data.encode import fit_vocabulary, standardise
from training.data.raw import IdColumn, RawAttributes

IDS = ["b", "a", "10", "9", "é", "Z"]
events = st.lists(st.tuples(st.integers(0, len(IDS) - 1), st.booleans()), max_size=40)


@given(events, st.lists(st.sampled_from([*IDS, "cold", "colder"]), unique=True))
def test_vocabulary_equals_a_sort_in_plain_python(pairs: list[tuple[int, bool]], listed: list[str]) -> None:
    codes = np.array([code for code, _ in pairs], dtype=np.int32)
    is_train = np.array([train for _, train in pairs], dtype=bool)
    attributes = RawAttributes(pa.array(listed, pa.string()), pa.table({}))
    encoding = fit_vocabulary(IdColumn(codes, pa.array(IDS)), codes, is_train, attributes)
    counts = Counter(IDS[code] for code, train in pairs if train)
    known = {IDS[code] for code, _ in pairs} | set(listed)
    expected = sorted(known, key=lambda key: (-counts[key], key.encode()))
    assert encoding.ids.to_pylist() == expected
    for code, row in enumerate(encoding.row_of_code):
        if code in codes:
            assert expected[row] == IDS[code]
        else:
            assert row == -1


def test_standardise_uses_the_train_split_alone() -> None:
    raw = np.array([1, 3, np.nan, 9], dtype=np.float32)
    found = standardise(raw, np.array([True, True, True, False]))
    assert (found.mean, found.std) == (2.0, 1.0)
    assert found.values.tolist() == [-1, 1, 0, 7]
    assert found.values.dtype == np.float32


def test_standardise_gives_zeros_without_known_train_values() -> None:
    found = standardise(np.array([np.nan, 5], dtype=np.float32), np.array([True, False]))
    assert (found.mean, found.std, found.values.tolist()) == (0.0, 0.0, [0, 0])

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import ReleaseError
from core.features import FeatureColumn, FeatureTable
from core.histories import Histories
from core.vocabulary import Vocabulary
from serving.history import SqliteHistoryStore, open_history, write_history

NO_FEATURES = FeatureTable((), np.zeros((3, 0), np.int32))


def three_users() -> tuple[Vocabulary, Histories, FeatureTable]:
    histories = Histories.from_events(
        np.array([0, 0, 2, 0]),
        np.array([5, 6, 7, 8]),
        np.array([10.0, 30.0, 5.5, 20.0]),
        np.array([0.1, -1, 2, 3]),
        3,
        np.array([1, 0, 2, 3]),
    )
    codes = np.array([[1, 2], [3, 0], [0, 4]], np.int32)
    columns = (FeatureColumn("sex", "category", 5, 1), FeatureColumn("age", "category", 5, 1))
    return Vocabulary(["ann", "bob", "зоя"]), histories, FeatureTable(columns, codes)


@pytest.fixture
def store(tmp_path: Path) -> SqliteHistoryStore:
    path = tmp_path / "history.sqlite"
    write_history(path, *three_users())
    return open_history(path)


def test_lookup_returns_newest_first_in_the_order_asked(store: SqliteHistoryStore) -> None:
    states = store.lookup(["зоя", "ann"])
    assert [history.item_rows.tolist() for history in states.histories] == [[7], [6, 8, 5]]
    assert states.histories[1].timestamps.tolist() == [30.0, 20.0, 10.0]
    assert np.allclose(states.histories[1].values, [-1, 3, 0.1])
    assert states.features.tolist() == [[0, 4], [1, 2]]


def test_lookup_gives_empty_history_and_unknown_features_when_user_is_unknown(store: SqliteHistoryStore) -> None:
    states = store.lookup(["nobody", "bob", ""])
    assert [len(history) for history in states.histories] == [0, 0, 0]
    assert states.features.tolist() == [[0, 0], [3, 0], [0, 0]]


def test_lookup_has_one_unknown_column_when_there_are_no_features(tmp_path: Path) -> None:
    users, histories, _ = three_users()
    write_history(tmp_path / "h.sqlite", users, histories, NO_FEATURES)
    assert open_history(tmp_path / "h.sqlite").lookup(["ann", "x"]).features.tolist() == [[0], [0]]


def test_store_is_read_only(store: SqliteHistoryStore) -> None:
    with pytest.raises(sqlite3.OperationalError):
        store._connection.execute("DELETE FROM histories")


def test_lookup_works_from_many_threads(store: SqliteHistoryStore) -> None:
    with ThreadPoolExecutor(8) as pool:
        lengths = list(pool.map(lambda _: len(store.lookup(["ann"]).histories[0]), range(400)))
    assert lengths == [3] * 400


def test_write_refuses_tables_of_different_length(tmp_path: Path) -> None:
    _, histories, features = three_users()
    with pytest.raises(ReleaseError, match="differ in length"):
        write_history(tmp_path / "h.sqlite", Vocabulary(["ann"]), histories, features)


@pytest.mark.parametrize("content", [b"", b"no database at all, only text"])
def test_open_names_the_file_when_it_is_no_history(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "history.sqlite"
    path.write_bytes(content)
    with pytest.raises(ReleaseError) as error:
        open_history(path)
    assert error.value.where == str(path)


def test_open_refuses_another_schema_version(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    write_history(path, *three_users())
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version=99")
    with pytest.raises(ReleaseError, match="another version"):
        open_history(path)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 50)), max_size=60), st.integers(0, 2**32 - 1))
def test_every_history_comes_back_as_written(tmp_path_factory: pytest.TempPathFactory, events: list, seed: int) -> None:
    users, items = (np.array([event[side] for event in events], dtype=np.int64) for side in (0, 1))
    rng = np.random.default_rng(seed)
    histories = Histories.from_events(
        users, items, rng.random(len(events)) * 1e9, rng.random(len(events)), 5, rng.integers(0, 255, len(events))
    )
    path = tmp_path_factory.mktemp("h") / "history.sqlite"
    write_history(path, Vocabulary([f"u{row}" for row in range(5)]), histories, FeatureTable((), np.zeros((5, 0))))
    found = open_history(path).lookup([f"u{row}" for row in range(5)]).histories
    for wanted, history in zip(histories, found, strict=True):
        assert np.array_equal(wanted.item_rows, history.item_rows)
        assert np.array_equal(wanted.timestamps, history.timestamps)
        assert np.array_equal(wanted.values, history.values)
        assert np.array_equal(wanted.kinds, history.kinds)

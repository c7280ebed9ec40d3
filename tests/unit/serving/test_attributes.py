"""Attributes that come with a request: known values become codes, everything else is welcome too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from core.codebook import Codebook, ColumnCodes
from core.errors import RequestError
from core.features import UNKNOWN, FeatureColumn, FeatureTable
from core.histories import Histories
from core.tensors import USER_ATTRIBUTES, USER_FEATURES
from core.vocabulary import Vocabulary
from pipeline.recommend import read_attributes
from serving.context import build_context
from serving.messages import make_request
from serving.state import Catalogue, ContextState, read_context_state, write_context_state

COLUMNS = (FeatureColumn("club", "category", 3, 1), FeatureColumn("age", "number", 4, 1))
BOOK = Codebook((ColumnCodes(COLUMNS[0], ("red", "blue")), ColumnCodes(COLUMNS[1], edges=(20.0, 40.0))))


@pytest.fixture
def state(tmp_path: Path) -> ContextState:
    items, users = Vocabulary(["a", "b"]), Vocabulary(["known"])
    nothing = np.zeros(0)
    histories = Histories.from_events(nothing.astype(int), nothing.astype(int), nothing, nothing, 1)
    features = FeatureTable(COLUMNS, np.array([[1, 3]], dtype=np.int32))
    write_context_state(tmp_path, "r1", Catalogue(items, np.ones(2, np.int64)), users, histories, features, BOOK)
    return read_context_state(tmp_path)


def codes(state: ContextState, attributes: list[dict[str, str]]) -> list[list[int]]:
    request = make_request(["known", "new"], attributes=attributes)
    states = state.store.lookup(request.users)
    context = build_context(
        states, request.session_items, request.exclude, state.items, state.excluded, request.attributes, state.codebook
    )
    return context.tensors()[USER_FEATURES.name].tolist()


def test_new_user_gets_the_codes_of_the_attributes(state: ContextState) -> None:
    assert codes(state, [{}, {"club": "blue", "age": "33"}]) == [[1, 3], [2, 2]]


def test_given_attributes_replace_the_known_ones(state: ContextState) -> None:
    assert codes(state, [{"club": "blue"}, {}]) == [[2, 3], [UNKNOWN, UNKNOWN]]


def test_unknown_names_and_values_are_no_error(state: ContextState) -> None:
    assert codes(state, [{"shoe size": "44"}, {"club": "green", "age": "old"}]) == [[1, 3], [UNKNOWN, UNKNOWN]]


def test_next_request_knows_nothing_of_the_last_ones_attributes(state: ContextState) -> None:
    codes(state, [{"club": "blue"}, {"club": "blue"}])
    assert codes(state, [{}, {}]) == [[1, 3], [UNKNOWN, UNKNOWN]]


def test_attributes_travel_only_when_there_are_any() -> None:
    assert USER_ATTRIBUTES.name not in make_request(["u"]).tensors()
    sent = make_request(["u", "v"], attributes=[{}, {"club": "red", "age": "1=2"}]).tensors()[USER_ATTRIBUTES.name]
    assert sent.tolist() == [["", ""], ["club=red", "age=1=2"]]


@pytest.mark.parametrize("wrong", [{"club": "red"}, [{"club": 3}], [{"": "x"}], [{"a=b": "x"}], ["club=red"], []])
def test_malformed_attributes_are_refused_before_sending(wrong: object) -> None:
    with pytest.raises(RequestError, match="attribute"):
        make_request(["u"], attributes=wrong)  # type: ignore[arg-type]


def test_release_without_attribute_codes_still_answers(state: ContextState, tmp_path: Path) -> None:
    (tmp_path / "user_codes.json").unlink()
    assert codes(read_context_state(tmp_path), [{}, {"club": "blue"}]) == codes(state, [{}, {}])


def test_read_attributes_splits_at_the_first_sign_and_refuses_other_text() -> None:
    assert read_attributes(["age=25", "motto=a=b", "empty="]) == {"age": "25", "motto": "a=b", "empty": ""}
    for text in ("age", "=25"):
        with pytest.raises(RequestError, match="not an attribute"):
            read_attributes([text])

from __future__ import annotations

import numpy as np
import pytest

from core.errors import RequestError
from core.tensors import MASKED
from serving.name_users import name_users
from serving.similar import items_request, read_similar_users

USERS = np.array(["ann", "bob", "cy", ""], dtype=object)


def test_one_item_and_several_items_are_both_questions() -> None:
    request = items_request(["a", ["b", "c"]], k=[3, 2])
    assert request.asked == (("a",), ("b", "c"))
    assert request.tensors()["items"].tolist() == [["a", ""], ["b", "c"]]
    assert request.tensors()["k"].tolist() == [[3], [2]]
    assert "exclude_items" not in request.tensors()
    assert request.take([1]).asked == (("b", "c"),)


@pytest.mark.parametrize(
    ("items", "where"),
    [
        ("a", "items"),
        ([], "items"),
        ([[]], "items[0]"),
        (["a", ""], "items[1]"),
        (["a", [3]], "items[1]"),
        ([b"a"], "items[0]"),
    ],
)
def test_questions_that_cannot_be_asked_are_refused(items: object, where: str) -> None:
    with pytest.raises(RequestError) as error:
        items_request(items)  # type: ignore[arg-type]
    assert str(error.value.where).startswith(where)


@pytest.mark.parametrize("k", [0, -1, 1.5, True, [1]])
def test_k_is_checked_as_for_recommendations(k: object) -> None:
    with pytest.raises(RequestError):
        items_request(["a", "b"], k=k)  # type: ignore[arg-type]


def test_who_asks_is_left_out_and_others_move_up() -> None:
    rows, scores = np.array([[1, 0, 2]] * 2), np.array([[1.0, 0.5, 0.25]] * 2, np.float32)
    named = name_users(np.array([1, -1]), np.array([3, 2]), rows, scores, USERS)
    assert named["user_ids"].tolist() == [["ann", "cy", ""], ["bob", "ann", ""]]
    assert named["scores"].tolist() == [[0.5, 0.25, 0], [1, 0.5, 0]]


def test_places_without_a_user_stay_empty() -> None:
    rows, scores = np.array([[2, 0, 0]]), np.array([[0.5, MASKED, MASKED]], np.float32)
    named = name_users(np.array([-1]), np.array([3]), rows, scores, USERS)
    assert named["user_ids"].tolist() == [["cy", "", ""]]
    assert named["scores"].tolist() == [[0.5, 0, 0]]


def test_answers_are_read_per_user_without_padding() -> None:
    from serving.messages import make_request

    tensors = {
        "user_ids": np.array([[b"bob", b"cy"], [b"", b""]], dtype=object),
        "scores": np.array([[0.9, 0.1], [0, 0]]),
        "release": np.array([[b"r1"], [b"r1"]], dtype=object),
    }
    ann, nobody = read_similar_users(make_request(["ann", "x"], k=2), tensors, 1.0)
    assert [(user.user_id, user.score, user.rank) for user in ann.users] == [("bob", 0.9, 1), ("cy", 0.1, 2)]
    assert (ann.release, nobody.users) == ("r1", ())

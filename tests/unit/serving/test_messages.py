from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from core.errors import RequestError
from serving.messages import make_request, read_answer


def test_optional_tensors_are_left_out_when_nobody_has_any() -> None:
    assert set(make_request(["a"]).tensors()) == {"user_id", "k"}


def test_lists_are_padded_to_the_longest() -> None:
    tensors = make_request(["a", "b"], session_items=[["x", "y"], []], exclude=[[], ["z"]]).tensors()
    assert tensors["session_items"].tolist() == [["x", "y"], ["", ""]]
    assert tensors["exclude_items"].tolist() == [[""], ["z"]]


def test_k_may_differ_per_user() -> None:
    assert make_request(["a", "b"], k=[1, 5]).tensors()["k"].tolist() == [[1], [5]]


def test_parts_keep_order_and_cover_everyone() -> None:
    request = make_request([f"u{at}" for at in range(7)], k=list(range(1, 8)))
    parts = list(request.parts(3))
    assert [len(part) for part in parts] == [3, 3, 1]
    assert [user for part in parts for user in part.users] == list(request.users)
    assert [k for part in parts for k in part.k] == list(request.k)


@pytest.mark.parametrize(
    ("arguments", "where"),
    [
        ({"users": []}, "users"),
        ({"users": "ann"}, "users"),
        ({"users": [""]}, "users[0]"),
        ({"users": ["a", 7]}, "users[1]"),
        ({"users": ["\ud800"]}, "users[0]"),
        ({"users": ["a" * 2000]}, "users[0]"),
        ({"users": ["a"], "k": 0}, "k"),
        ({"users": ["a"], "k": True}, "k"),
        ({"users": ["a"], "k": 2.5}, "k"),
        ({"users": ["a"], "k": 2**40}, "k"),
        ({"users": ["a"], "k": [1, 2]}, "k"),
        ({"users": ["a"], "session_items": ["x"]}, "session_items[0]"),
        ({"users": ["a"], "session_items": "x"}, "session_items"),
        ({"users": ["a"], "session_items": [[], []]}, "session_items"),
        ({"users": ["a"], "exclude": [["x"] * 5000]}, "exclude[0]"),
        ({"users": ["a"], "exclude": [[None]]}, "exclude[0][0]"),
    ],
)
def test_wrong_request_names_the_place(arguments: dict[str, Any], where: str) -> None:
    with pytest.raises(RequestError) as error:
        make_request(**arguments)
    assert error.value.where == where


def test_answer_is_read_without_padding() -> None:
    request = make_request(["a", "b"])
    tensors = {
        "item_ids": np.array([[b"x", b"y"], [b"z", b""]], object),
        "scores": np.array([[2, 1], [3, 0]], np.float32),
        "reason_ids": np.array([[[b"p", b"", b""]] * 2, [[b"q", b"r", b""]] * 2], object),
        "reason_shares": np.full((2, 2, 3), 0.5, np.float32),
        "release": np.array([[b"r1"], [b"r1"]], object),
    }
    first, second = read_answer(request, tensors, 4.0)
    assert [(item.item_id, item.rank, item.score) for item in first.items] == [("x", 1, 2.0), ("y", 2, 1.0)]
    assert [item.item_id for item in second.items] == ["z"]
    assert [reason.item_id for reason in second.items[0].reasons] == ["q", "r"]
    assert (first.user_id, second.release, second.latency_ms) == ("a", "r1", 4.0)


def test_diversity_is_one_for_all_or_one_each_and_absent_by_default() -> None:
    assert "diversity" not in make_request(["a", "b"]).tensors()
    assert make_request(["a", "b"], diversity=0.5).tensors()["diversity"].tolist() == [[0.5], [0.5]]
    each = make_request(["a", "b", "c"], diversity=[0, 0.25, 1])
    assert each.take([2, 1]).tensors()["diversity"].tolist() == [[1], [0.25]]
    assert each.tensors()["diversity"].dtype == np.float32


@pytest.mark.parametrize("value", [-0.01, 1.01, float("nan"), float("inf"), True, "0.5", [0.5], [0.1, "0.2"]])
def test_diversity_that_is_no_number_from_0_to_1_is_refused(value: object) -> None:
    with pytest.raises(RequestError, match="diversity") as error:
        make_request(["a", "b"], diversity=value)  # type: ignore[arg-type]
    assert error.value.where == "diversity"

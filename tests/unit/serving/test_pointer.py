from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import PublishError
from serving.pointer import Pointer, PointerReader, model_of, read_pointer, replace_pointer

USERS = [f"user {n}" for n in range(4_000)]


def test_weights_deal_users_evenly_and_keep_who_is_in() -> None:
    before: set[str] = set()
    for weight in (0.01, 0.05, 0.25, 0.5, 1.0):
        pointer = Pointer(epoch=1, stable="r1", canary="r2", weight=weight, salt="a")
        inside = {user for user in USERS if pointer.side_of(user) == "canary"}
        assert before <= inside
        assert abs(len(inside) / len(USERS) - weight) < 0.03
        before = inside
    assert before == set(USERS)


def test_salts_deal_independently() -> None:
    one, other = (Pointer(epoch=1, stable="r1", canary="r2", weight=0.5, salt=salt) for salt in "ab")
    both = sum(one.side_of(user) == other.side_of(user) for user in USERS)
    assert abs(both / len(USERS) - 0.5) < 0.04


@given(st.text(), st.text(max_size=64), st.floats(0, 1))
def test_a_user_always_has_the_same_side(user: str, salt: str, weight: float) -> None:
    pointer = Pointer(epoch=1, stable="r1", canary="r2", weight=weight, salt=salt)
    assert pointer.release_of(user) == pointer.release_of(user) in ("r1", "r2")


def test_replace_refuses_an_epoch_that_does_not_grow(tmp_path: Path) -> None:
    path = tmp_path / "serving.json"
    replace_pointer(path, Pointer(epoch=4, stable="r1"))
    for epoch in (3, 4):
        with pytest.raises(PublishError, match="moved on"):
            replace_pointer(path, Pointer(epoch=epoch, stable="r2"))
    assert read_pointer(path) == Pointer(epoch=4, stable="r1")
    assert [entry.name for entry in tmp_path.iterdir()] == ["serving.json"]


def test_reader_follows_and_keeps_the_last_when_the_file_breaks_goes_back_or_goes(tmp_path: Path) -> None:
    path = tmp_path / "serving.json"
    reader = PointerReader(path)
    assert reader.current() is None
    replace_pointer(path, Pointer(epoch=1, stable="r1"))
    assert reader.current() == Pointer(epoch=1, stable="r1")
    replace_pointer(path, Pointer(epoch=7, stable="r2"))
    assert reader.current() == Pointer(epoch=7, stable="r2")
    path.write_text("{")
    assert reader.current() == Pointer(epoch=7, stable="r2")
    path.write_text(Pointer(epoch=6, stable="r1").model_dump_json())
    assert reader.current() == Pointer(epoch=7, stable="r2")
    os.unlink(path)
    assert reader.current() == Pointer(epoch=7, stable="r2")


def test_a_broken_pointer_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "serving.json"
    path.write_text('{"epoch": 1, "stable": "r1", "canary": null, "weight": 0.5}')
    with pytest.raises(PublishError, match=r"serving\.json"):
        read_pointer(path)


def test_a_release_has_its_own_model() -> None:
    assert model_of("r000012") == "recommend.r000012"

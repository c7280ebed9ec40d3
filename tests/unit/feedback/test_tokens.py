"""Impression tokens and the keys behind them."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import FeedbackError
from core.feedback_keys import load_keys
from core.feedback_reasons import Reason
from core.feedback_tokens import TokenKeys, check_token, issue_token, slate_digest
from tests.unit.feedback.worlds import ref

KEYS = TokenKeys((b"n" * 32, b"o" * 32))
USER = ref("ann")


def issued(keys: TokenKeys = KEYS) -> str:
    return issue_token(keys, "r-1", USER, ["a", "b"], expires_s=1_000)


def test_token_holds_until_it_expires() -> None:
    assert check_token(KEYS, issued(), "r-1", USER, now_s=1_000, items=["a", "b"]) is None
    assert check_token(KEYS, issued(), "r-1", USER, now_s=1_000.5) == Reason.EXPIRED_TOKEN


def test_token_of_an_older_key_still_holds() -> None:
    old = issued(TokenKeys((b"o" * 32,)))
    assert check_token(KEYS, old, "r-1", USER, now_s=0) is None
    assert check_token(TokenKeys((b"n" * 32,)), old, "r-1", USER, now_s=0) == Reason.FORGED_TOKEN


def test_token_is_forged_when_request_user_or_slate_is_another() -> None:
    for request, user, items in (("r-2", USER, None), ("r-1", ref("bob"), None), ("r-1", USER, ["b", "a"])):
        assert check_token(KEYS, issued(), request, user, now_s=0, items=items) == Reason.FORGED_TOKEN


@given(st.integers(0, 200), st.characters())
def test_any_changed_letter_makes_a_token_forged(place: int, letter: str) -> None:
    good = issued()
    place %= len(good)
    bad = good[:place] + letter + good[place + 1 :]
    verdict = check_token(KEYS, bad, "r-1", USER, now_s=0)
    assert (verdict is None) == (bad == good)


@pytest.mark.parametrize("text", [None, "", "1", "1.2.3.4.5", "2.3e8.x.y", "1.ü.x.y", "....", "1..."])
def test_anything_else_is_forged(text: str | None) -> None:
    assert check_token(KEYS, text, "r-1", USER, now_s=0) == Reason.FORGED_TOKEN


@given(st.lists(st.text(max_size=3), max_size=4), st.lists(st.text(max_size=3), max_size=4))
def test_different_slates_have_different_digests(one: list[str], other: list[str]) -> None:
    assert (slate_digest(one) == slate_digest(other)) == (one == other)


def test_keys_are_made_once_and_for_the_owner_alone(tmp_path: Path) -> None:
    found = []
    threads = [threading.Thread(target=lambda: found.append(load_keys(tmp_path / "keys"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({(keys.pseudonym, keys.tokens.keys) for keys in found}) == 1
    assert sorted(path.name for path in (tmp_path / "keys").iterdir()) == ["pseudonym.key", "token.keys"]
    assert all(path.stat().st_mode & 0o077 == 0 for path in (tmp_path / "keys").iterdir())
    assert found[0].pseudonym.hex() not in repr(found[0])


@pytest.mark.parametrize("content", ["", "zz", "00ff", "ü"])
def test_keys_are_refused_when_they_are_none(tmp_path: Path, content: str) -> None:
    load_keys(tmp_path)
    (tmp_path / "token.keys").write_text(content, encoding="utf-8")
    with pytest.raises(FeedbackError, match="no usable key"):
        load_keys(tmp_path)


def test_keys_are_refused_when_everybody_can_read_them(tmp_path: Path) -> None:
    load_keys(tmp_path)
    (tmp_path / "pseudonym.key").chmod(0o644)
    with pytest.raises(FeedbackError, match="everybody can read"):
        load_keys(tmp_path)

"""Bodies that no request has: each ends in a 4xx before anything else sees it."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Iterable

import pytest
from starlette.requests import Request

from serving.gateway.body import read_json, validated
from serving.gateway.problems import Problem
from serving.gateway.wire import RecommendationRequest

JSON = [(b"content-type", b"application/json")]
GZIP = [*JSON, (b"content-encoding", b"gzip")]
LIMIT = 1 << 20


def read(body: bytes | Iterable[bytes], headers: list[tuple[bytes, bytes]] = JSON) -> object:
    pieces = [body] if isinstance(body, bytes) else list(body)
    messages = [
        {"type": "http.request", "body": piece, "more_body": at + 1 < len(pieces)} for at, piece in enumerate(pieces)
    ]
    waiting = iter(messages)

    async def receive() -> dict[str, object]:
        return next(waiting)

    scope = {"type": "http", "method": "POST", "path": "/", "headers": headers, "query_string": b""}
    return asyncio.run(read_json(Request(scope, receive), LIMIT, 1.0))  # type: ignore[arg-type]


BAD = {
    "empty": (b"", JSON, 400),
    "not json": (b"{user", JSON, 400),
    "NaN": (b'{"k": NaN}', JSON, 400),
    "infinity": (b'{"k": -Infinity}', JSON, 400),
    "a key twice": (b'{"k": 1, "k": 2}', JSON, 400),
    "not utf-8": (b'{"k": "\xff"}', JSON, 400),
    "50,000 deep": (b"[" * 50_000 + b"]" * 50_000, JSON, 400),
    "33 deep": (b"[" * 33 + b"]" * 33, JSON, 400),
    "five megabytes": (b'"' + b"a" * 5_000_000 + b'"', JSON, 413),
    "a lying length": (b"{}", [*JSON, (b"content-length", b"99999999")], 413),
    "a length of letters": (b"{}", [*JSON, (b"content-length", b"abc")], 413),
    "a million pieces": ([b" "] * 5_000, JSON, 413),
    "a gzip bomb": (gzip.compress(b" " * 50_000_000), GZIP, 413),
    "half a gzip": (gzip.compress(b"{}" * 100)[:-6], GZIP, 400),
    "no gzip": (b"{}", GZIP, 400),
    "gzip and more": (gzip.compress(b"{}") + b"x", GZIP, 400),
    "brotli": (b"{}", [*JSON, (b"content-encoding", b"br")], 415),
    "text": (b"{}", [(b"content-type", b"text/plain")], 415),
    "no type": (b"{}", [], 415),
    "a long number": (b'{"k": ' + b"9" * 10_000 + b"}", JSON, 400),
}


@pytest.mark.parametrize("name", BAD)
def test_odd_body_is_refused(name: str) -> None:
    body, headers, status = BAD[name]
    with pytest.raises(Problem) as error:
        read(body, headers)
    assert error.value.status == status


def test_depth_counts_brackets_outside_strings_only() -> None:
    assert read(b'{"a": "' + b"[" * 1_000 + b'\\"["}') == {"a": "[" * 1_000 + '"['}
    assert read(b"[" * 32 + b"]" * 32)


def test_gzip_is_unpacked() -> None:
    assert read(gzip.compress(b'{"k": 3}'), GZIP) == {"k": 3}


GOOD = {"user_id": "u"}
WRONG = {
    "k of zero": {"k": 0}, "negative k": {"k": -1}, "k of text": {"k": "3"}, "k of float": {"k": 3.5},
    "k above": {"k": 201}, "k true": {"k": True}, "huge k": {"k": 1 << 70}, "empty user": {"user_id": ""},
    "long user": {"user_id": "u" * 129}, "control": {"user_id": "a\x00b"}, "newline": {"user_id": "a\n"},
    "surrogate": {"user_id": "a\ud800"}, "not NFC": {"user_id": "e\u0301"}, "number": {"user_id": 5},
    "none": {"user_id": None}, "session text": {"session_items": "abc"}, "session numbers": {"session_items": [1]},
    "session long": {"session_items": ["a"] * 1001}, "diversity 2": {"diversity": 2},
    "diversity text": {"diversity": "x"},
    "unknown": {"surprise": 1}, "context list": {"context": []}, "context deep": {"context": {"a": {"b": 1}}},
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_request_outside_the_schema_is_422_that_names_the_field(name: str) -> None:
    with pytest.raises(Problem) as error:
        validated(RecommendationRequest, GOOD | WRONG[name])
    assert error.value.status == 422
    assert error.value.told["where"] is not None
    assert next(iter(WRONG[name])) in error.value.told["where"]


@pytest.mark.parametrize("value", [None, 3, [], "x"])
def test_body_that_is_no_object_is_422(value: object) -> None:
    with pytest.raises(Problem) as error:
        validated(RecommendationRequest, value)
    assert error.value.status == 422

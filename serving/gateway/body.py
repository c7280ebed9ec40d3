"""From bytes to a validated request. Whatever is odd ends here with a 4xx: Triton never sees it."""

from __future__ import annotations

import asyncio
import json
import zlib
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect, Request

from serving.gateway.problems import Problem

MAX_DEPTH = 32
MAX_CHUNKS = 4_096
"""Pieces in which a body may arrive."""
T = TypeVar("T", bound=BaseModel)


async def read_json(request: Request, max_bytes: int, seconds: float) -> Any:
    """The body as JSON values. Raises Problem for anything that is not a small, plain JSON document."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Problem(415, "wrong content type", where="Content-Type", expected="application/json", found=kind)
    try:
        async with asyncio.timeout(seconds):
            raw = await _received(request, max_bytes)
    except TimeoutError:
        raise Problem(408, "the body did not arrive in time", expected=f"within {seconds:g} seconds") from None
    except ClientDisconnect:
        raise Problem(400, "the client went away") from None
    return parse_json(_unpacked(raw, request.headers.get("content-encoding", ""), max_bytes))


def parse_json(raw: bytes) -> Any:
    """Strict JSON: UTF-8, no NaN or infinity, no key twice, at most ``MAX_DEPTH`` deep.

    Raises:
        Problem: 400.
    """
    check_depth(raw)
    try:
        return json.loads(raw.decode("utf-8"), parse_constant=_no_constant, object_pairs_hook=_no_repeats)
    except UnicodeDecodeError:
        raise Problem(400, "the body is not UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise Problem(400, "the body is not JSON", found=str(error)) from None


def check_depth(raw: bytes) -> None:
    """Raises Problem where brackets outside strings nest deeper than ``MAX_DEPTH``."""
    if raw.count(b"[") + raw.count(b"{") <= MAX_DEPTH:  # cannot be deeper
        return
    depth, quoted, at, end = 0, False, 0, len(raw)
    while at < end:
        byte = raw[at]
        if quoted:
            if byte == 0x5C:  # backslash: the next byte is no quote
                at += 1
            elif byte == 0x22:
                quoted = False
        elif byte == 0x22:
            quoted = True
        elif byte in b"[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise Problem(400, "the body nests too deep", expected=f"at most {MAX_DEPTH} levels")
        elif byte in b"]}":
            depth -= 1
        at += 1


def validated(model: type[T], values: Any) -> T:
    """``values`` as ``model``. Raises Problem (422) with the first thing that is wrong."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "body"
        found = first.get("input")
        raise Problem(
            422, "the request is not valid", where=where, expected=first["msg"], found=_short(found), code=first["type"]
        ) from None


def _short(value: Any) -> str:
    text = repr(value) if isinstance(value, str | int | float | bool | None) else type(value).__name__
    return ascii(text[:80])[1:-1]


async def _received(request: Request, max_bytes: int) -> bytes:
    length = request.headers.get("content-length")
    if length is not None and (not length.isdigit() or int(length) > max_bytes):
        raise _too_large(max_bytes)
    parts: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        parts.append(chunk)
        size += len(chunk)
        if size > max_bytes or len(parts) > MAX_CHUNKS:
            raise _too_large(max_bytes)
    return b"".join(parts)


def _unpacked(raw: bytes, encoding: str, max_bytes: int) -> bytes:
    """Undoes gzip, never beyond ``max_bytes``: a bomb ends there."""
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return raw
    if encoding != "gzip":
        raise Problem(415, "unknown encoding", where="Content-Encoding", expected="gzip or none", found=encoding)
    unpacker = zlib.decompressobj(wbits=31)
    try:
        plain = unpacker.decompress(raw, max_bytes + 1)
    except zlib.error:
        raise Problem(400, "the body is not gzip", where="Content-Encoding") from None
    if len(plain) > max_bytes:
        raise _too_large(max_bytes)
    if not unpacker.eof or unpacker.unused_data:
        raise Problem(400, "the body is not one whole gzip stream", where="Content-Encoding")
    return plain


def _too_large(max_bytes: int) -> Problem:
    return Problem(413, "the body is too large", expected=f"at most {max_bytes:,} bytes in {MAX_CHUNKS:,} pieces")


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a key stands twice in an object")
    return values

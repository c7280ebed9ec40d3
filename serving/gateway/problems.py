"""Errors as users see them: problem+json (RFC 9457) with what, where, expected and found; never internals."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse

MEDIA_TYPE = "application/problem+json"


class Problem(Exception):  # noqa: N818  (the RFC's word)
    """An answer that is an error.

    Args:
        status: HTTP status.
        what: One sentence.
        where: Field, header or address.
        expected: What would have been right.
        found: What was there instead, cut short.
        retry_after_s: When to try again.
        code: Reason in one word, for programs.
    """

    def __init__(
        self,
        status: int,
        what: str,
        *,
        where: str | None = None,
        expected: str | None = None,
        found: str | None = None,
        retry_after_s: int | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(what)
        self.status, self.what, self.retry_after_s = status, what, retry_after_s
        self.told = {
            "where": where,
            "expected": expected,
            "found": None if found is None else found[:120],
            "code": code,
        }

    def response(self, request_id: str = "") -> JSONResponse:
        """As an HTTP response, with the id that stands in the logs."""
        headers = {} if self.retry_after_s is None else {"Retry-After": str(self.retry_after_s)}
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        body: dict[str, Any] = {"type": "about:blank", "title": self.what, "status": self.status}
        body |= {key: value for key, value in self.told.items() if value is not None}
        if request_id:
            body["request_id"] = request_id
        return JSONResponse(body, self.status, headers, MEDIA_TYPE)


PROBLEM_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["type", "title", "status"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string", "description": "What went wrong."},
        "status": {"type": "integer"},
        "where": {"type": "string"},
        "expected": {"type": "string"},
        "found": {"type": "string"},
        "code": {"type": "string"},
        "request_id": {"type": "string"},
    },
}
"""Of every answer that is an error."""

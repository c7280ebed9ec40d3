"""Request ids through all stages, and logs as JSON lines.

A request's id is the client's ``X-Request-ID`` where that is usable, else a new one. It comes back in the answer's
header, goes to Triton with the question and so into the logs of its steps, and stands in every line logged meanwhile.
It is not the answer's ``request_id``, which only the gateway may choose: events are attributed by it.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import uuid
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

HEADER = b"x-request-id"
USABLE = re.compile(rb"[A-Za-z0-9._-]{1,64}")
ACCESS = logging.getLogger("conch.access")
_facts: ContextVar[dict[str, Any] | None] = ContextVar("facts", default=None)


def begin(headers: list[tuple[bytes, bytes]]) -> str:
    """Starts a request; gives back its id."""
    given = next((value for name, value in headers if name == HEADER), b"")
    trace = given.decode() if USABLE.fullmatch(given) else uuid.uuid4().hex
    _facts.set({"request_id": trace})
    return trace


def current() -> str:
    """Id of the request that is being answered; "" outside of one."""
    return (_facts.get() or {}).get("request_id", "")


def note(**facts: Any) -> None:
    """Adds to what the request's line will say."""
    known = _facts.get()
    if known is not None:
        known.update(facts)


def log_request(route: str, method: str, status: int, milliseconds: float) -> None:
    """One line per request, where somebody reads them."""
    if ACCESS.isEnabledFor(logging.INFO):
        ACCESS.info("request", extra={"facts": {
            "method": method, "route": route, "status": status, "ms": round(milliseconds, 3),
        }})  # fmt: skip


class JsonLines(logging.Formatter):
    """A record as one JSON object: time, level, logger, message, what is known of the request, exception."""

    def format(self, record: logging.LogRecord) -> str:
        """See logging."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(), "logger": record.name, "message": record.getMessage(),
            **(_facts.get() or {}), **getattr(record, "facts", {}),
        }  # fmt: skip
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def log_as_json() -> None:
    """Sends all logs of this process to standard error as JSON lines, one per request among them."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    ACCESS.setLevel(logging.INFO)

"""The audit log: who changed what is live, why, from what to what. Append-only; each line holds the hash before it.

``paths.var``/audit/audit.jsonl. A line that was edited, removed or inserted breaks the chain; ``verify`` names it. An
end that was cut off is found by ``audit.head`` beside it, the number and hash of the last line.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock

from core.artifacts import replace_file
from core.errors import PublishError

AUDIT_FILE, HEAD_FILE = "audit.jsonl", "audit.head"
GENESIS = "0" * 64
"""``prev_sha256`` of the first line."""


@dataclass(frozen=True)
class Verdict:
    """What ``verify`` found.

    Attributes:
        lines: Good lines from the start.
        head: Hash of the last good one.
        bad_line: Number of the first bad one, from 1; None where all are good.
        complaint: What is wrong with it.
    """

    lines: int
    head: str
    bad_line: int | None = None
    complaint: str = ""


def audit_file(var: Path) -> Path:
    """Where the log lies; ``var`` is ``paths.var``."""
    return var / "audit" / AUDIT_FILE


def append(
    path: Path,
    *,
    actor: str,
    action: str,
    reason: str,
    inputs: Mapping[str, Any] | None = None,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
    durations_ms: Mapping[str, float] | None = None,
    now: datetime | None = None,
) -> str:
    """Appends one record durably; gives back its hash.

    A last line that a crash cut short was never acknowledged: it goes. Anything else that is wrong stays for
    ``verify`` to find.

    Args:
        path: ``audit_file(paths.var)``.
        actor: Who: a person, ``conch gate``, ``schedule``, ``guardrail``.
        action: activate, rollback, canary start, block, …
        reason: Why, in words.
        inputs: Hashes and numbers that the decision rests on.
        before: The pointer before.
        after: The pointer after.
        durations_ms: How long each step took.
        now: With time zone; the clock's when None.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        number, previous = _end(path)
        record = {
            "n": number + 1,
            "prev_sha256": previous,
            "time": (now or datetime.now(UTC)).isoformat(timespec="milliseconds"),
            "actor": actor,
            "action": action,
            "reason": reason,
            "inputs": dict(inputs or {}),
            "before": None if before is None else dict(before),
            "after": None if after is None else dict(after),
            "durations_ms": {name: round(value, 3) for name, value in (durations_ms or {}).items()},
        }
        line = json.dumps(record, ensure_ascii=False, allow_nan=False, default=str).encode() + b"\n"
        with path.open("ab") as stream:
            stream.write(line)
            stream.flush()
            os.fsync(stream.fileno())
        digest = hashlib.sha256(line).hexdigest()
        replace_file(path.with_name(HEAD_FILE), f"{number + 1} {digest}\n".encode())
        return digest


def verify(path: Path) -> Verdict:
    """Checks the whole chain and names the first bad line."""
    number, previous = 0, GENESIS
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    for line in lines:
        try:
            record = json.loads(line)
            linked = (record["n"], record["prev_sha256"]) == (number + 1, previous) and line.endswith(b"\n")
        except (ValueError, KeyError, TypeError):
            return Verdict(number, previous, number + 1, "is no record")
        if not linked:
            return Verdict(number, previous, number + 1, "does not follow from the line before it")
        number, previous = number + 1, hashlib.sha256(line).hexdigest()
    head = _head(path)
    if head is not None and head[0] > number:
        return Verdict(number, previous, number + 1, f"is missing: there were {head[0]} lines")
    if head is not None and number and head[0] == number and head[1] != previous:
        return Verdict(number - 1, previous, number, "differs from what was written")
    return Verdict(number, previous)


def records(path: Path) -> list[dict[str, Any]]:
    """All records, oldest first. Raises PublishError where a line cannot be read."""
    found = []
    for number, line in enumerate(path.read_bytes().splitlines() if path.exists() else [], 1):
        try:
            found.append(json.loads(line))
        except ValueError:
            raise PublishError(
                "audit log cannot be read", where=f"{path}, line {number}", next_step="conch audit verify"
            ) from None
    return found


def _end(path: Path) -> tuple[int, str]:
    """Number and hash of the last line."""
    if not path.exists():
        return 0, GENESIS
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        os.truncate(path, len(whole))
    lines = whole.splitlines(keepends=True)
    return (len(lines), hashlib.sha256(lines[-1]).hexdigest()) if lines else (0, GENESIS)


def _head(path: Path) -> tuple[int, str] | None:
    try:
        number, digest = path.with_name(HEAD_FILE).read_text(encoding="ascii").split()
        return int(number), digest
    except (OSError, ValueError):
        return None

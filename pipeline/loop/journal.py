"""Every decision of the loop, "no" included, one JSON line each."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

Action = Literal["skipped", "refused", "published", "canary", "failed"]


@dataclass(frozen=True)
class Decision:
    """One line.

    Attributes:
        time: ISO, UTC.
        trigger: What asked for it: manual, time, volume, drift, decay.
        action: What was done.
        reason: Why, for people.
        release: Release id of the challenger; None where none was made.
        champion: The live release before.
        figures: Plain JSON values: hashes, counts, seconds.
    """

    time: str
    trigger: str
    action: Action
    reason: str
    release: str | None = None
    champion: str | None = None
    figures: dict[str, Any] = field(default_factory=dict)


class Journal:
    """The file of decisions under ``paths.var``/loop."""

    def __init__(self, var: Path) -> None:
        self.path = var / "loop" / "decisions.jsonl"

    def add(self, decision: Decision) -> Decision:
        """Appends durably."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps(asdict(decision), allow_nan=False, default=str) + "\n"
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(line)
            stream.flush()
            os.fsync(stream.fileno())
        return decision

    def read(self) -> list[Decision]:
        """All of them, oldest first; a last line that a crash cut short is left out."""
        if not self.path.exists():
            return []
        found = []
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                found.append(Decision(**json.loads(line)))
            except (ValueError, TypeError):
                continue
        return found

    def times(self, *actions: Action) -> list[datetime]:
        """When decisions of these kinds were taken."""
        return [datetime.fromisoformat(one.time) for one in self.read() if one.action in actions]

"""What the runner tells the Locust process, as a file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from core.artifacts import write_json
from loadtests.scenario import Scenario


@dataclass(frozen=True)
class Plan:
    """One run.

    Attributes:
        scenario: What to do.
        address: host:port to ask.
        users: Known users, the most frequent first.
        folder: Where results go.
        seed: Of all draws.
        deadline_seconds: How long a user waits.
        api_key: Of the gateway, where it wants one.
    """

    scenario: Scenario
    address: str
    users: tuple[str, ...]
    folder: Path
    seed: int
    deadline_seconds: float
    api_key: str | None = None

    def write(self, path: Path) -> None:
        """Writes the plan."""
        plain = {**vars(self), "scenario": self.scenario.model_dump(mode="json"), "folder": str(self.folder)}
        write_json(path, plain)

    @classmethod
    def read(cls, path: Path) -> Plan:
        """Reads a plan."""
        plain = json.loads(path.read_text(encoding="utf-8"))
        plain |= {
            "scenario": Scenario.model_validate_json(json.dumps(plain["scenario"])),
            "folder": Path(plain["folder"]),
            "users": tuple(plain["users"]),
        }
        return cls(**plain)

"""What the publisher remembers: releases to keep loaded, blocked ones, whether a gate is in force, the open journal.

``paths.var``/publish/ledger.json and, while a change is under way, ``paths.var``/publish/journal.json.
"""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from core.artifacts import replace_file
from core.errors import PublishError
from serving.pointer import ReleaseId

KEPT = 3
"""Releases that stay loaded, the live one among them."""


class Ledger(BaseModel):
    """``ledger.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kept: tuple[ReleaseId, ...] = ()
    """Releases that were live, newest first: what a rollback can go back to."""
    blocked: dict[str, str] = {}
    """Releases that must not come back by themselves, and why."""
    gated: bool = False
    """A blessed release has been live: from then on nothing goes live by `conch release` alone."""

    def with_live(self, release_id: str) -> Ledger:
        """The ledger after a release went live."""
        kept = (release_id, *(name for name in self.kept if name != release_id))[:KEPT]
        return self.model_copy(update={"kept": kept})

    def with_blocked(self, release_id: str, reason: str) -> Ledger:
        """The ledger after a release was found bad."""
        kept = tuple(name for name in self.kept if name != release_id)
        return self.model_copy(update={"blocked": {**self.blocked, release_id: reason}, "kept": kept})


class Journal(BaseModel):
    """``journal.json``: the change under way. Left behind by a crash, it is settled by the next publisher."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    action: str
    release_id: str
    epoch: int
    """Of the lease."""
    step: str
    """The last one that was begun."""


def ledger_file(var: Path) -> Path:
    """Where the ledger lies; ``var`` is ``paths.var``."""
    return var / "publish" / "ledger.json"


def journal_file(var: Path) -> Path:
    """Where the journal lies; ``var`` is ``paths.var``."""
    return var / "publish" / "journal.json"


def read_ledger(var: Path) -> Ledger:
    """The ledger, an empty one where there is none. Raises PublishError where it cannot be read."""
    try:
        return Ledger.model_validate_json(ledger_file(var).read_bytes())
    except FileNotFoundError:
        return Ledger()
    except ValidationError as error:
        raise PublishError("ledger cannot be read", where=str(ledger_file(var)), found=str(error)) from None


def read_journal(var: Path) -> Journal | None:
    """The change that a crash left half-way, None where there is none."""
    try:
        return Journal.model_validate_json(journal_file(var).read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise PublishError("journal cannot be read", where=str(journal_file(var)), found=str(error)) from None


def write_record(path: Path, record: Ledger | Journal) -> None:
    """Replaces the file of a record durably."""
    replace_file(path, (json.dumps(record.model_dump(mode="json"), indent=1) + "\n").encode())

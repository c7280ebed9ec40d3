"""The publish lease: one publisher at a time, and a fencing epoch that stops one which was paused and taken over.

``paths.var``/publish/lease.json. Times are those of a clock that no one sets (since boot), so that a jump of the wall
clock neither ends a lease nor prolongs it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from pydantic import BaseModel, ConfigDict, ValidationError

from core.artifacts import replace_file
from core.errors import PublishError

LEASE_SECONDS = 120.0
"""Longer than any single step; each step renews it."""
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Record(BaseModel):
    """``lease.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epoch: int = 0
    """Grows with every holder."""
    holder: str = ""
    pid: int = 0
    started: str = ""
    """When that process started, so that another with its number is not taken for it."""
    boot: str = ""
    until: float = 0.0
    """Seconds since boot."""


def lease_file(var: Path) -> Path:
    """Where the lease lies; ``var`` is ``paths.var``."""
    return var / "publish" / "lease.json"


@dataclass
class Lease:
    """A lease that is held. Everything that others can see happens inside ``with lease.held():``."""

    path: Path
    epoch: int
    _clock: Callable[[], float]

    @contextmanager
    def held(self) -> Iterator[None]:
        """Runs a block while nobody can take the lease over, and renews it.

        Raises:
            PublishError: Somebody has taken it over: this publisher has to stop.
        """
        with FileLock(self.path.with_suffix(".lock")):
            record = _read(self.path)
            if record.epoch != self.epoch:
                raise PublishError(
                    "another publisher has taken over", where=str(self.path), expected=f"epoch {self.epoch}",
                    found=f"epoch {record.epoch} of {record.holder}", next_step="look at `conch status`",
                )  # fmt: skip
            _write(self.path, record.model_copy(update={"until": self._clock() + LEASE_SECONDS}))
            yield

    def release(self) -> None:
        """Gives it back; nothing happens where it is somebody else's by now."""
        with FileLock(self.path.with_suffix(".lock")):
            record = _read(self.path)
            if record.epoch == self.epoch:
                _write(self.path, record.model_copy(update={"until": 0.0, "pid": 0}))


def acquire(
    path: Path,
    holder: str,
    *,
    preempt: bool = False,
    clock: Callable[[], float] = time.monotonic,
    pid: int | None = None,
) -> Lease:
    """Takes the lease.

    Args:
        path: ``lease_file(paths.var)``.
        holder: Who, for people.
        preempt: Take it from a living holder, who then stops at its next step: for a rollback.
        clock: Seconds since boot.
        pid: Of the holder; this process's when None.

    Raises:
        PublishError: Somebody else holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        record = _read(path)
        if not preempt and _is_held(record, clock()):
            raise PublishError(
                "another publisher is at work", where=str(path), found=f"{record.holder}, process {record.pid}",
                next_step="wait until it is done; `conch rollback` need not wait",
            )  # fmt: skip
        pid = os.getpid() if pid is None else pid
        taken = Record(
            epoch=record.epoch + 1, holder=holder, pid=pid, started=_started(pid), boot=_boot(),
            until=clock() + LEASE_SECONDS,
        )  # fmt: skip
        _write(path, taken)
    return Lease(path, taken.epoch, clock)


def _is_held(record: Record, now: float) -> bool:
    alive = record.pid > 0 and record.started == _started(record.pid) != ""
    return alive and record.boot == _boot() and record.until > now


def _read(path: Path) -> Record:
    try:
        return Record.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return Record()
    except ValidationError:
        raise PublishError("lease cannot be read", where=str(path), next_step=f"remove {path}") from None


def _write(path: Path, record: Record) -> None:
    replace_file(path, (json.dumps(record.model_dump()) + "\n").encode(), durable=False)  # none outlives its boot


def _started(pid: int) -> str:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]


def _boot() -> str:
    return BOOT_ID.read_text().strip() if BOOT_ID.exists() else ""

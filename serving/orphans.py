"""What servers left behind whose parents were killed hard: stubs that outlived their Triton, and shared memory.

Every name carries the process id of the parent and its namespace of process ids: only what belongs to a process of this
very namespace that is gone is taken away. Linux only; elsewhere nothing is found.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")
PROCESSES = Path("/proc")
STUB = b"triton_python_backend_stub"
NAME = re.compile(r"conch_([0-9a-f]+)_(\d+)_\d+_")


def region_prefix(port: int | str) -> str:
    """What the names of a server's shared memory start with; ``port`` tells this process' servers apart."""
    return f"conch_{_namespace()}_{os.getpid()}_{port}_"


def sweep() -> int:
    """Ends orphaned stubs and removes orphaned shared memory; gives back how many there were."""
    found = 0
    for pid in _orphaned_stubs():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
            found += 1
    for region in SHARED_MEMORY.glob("conch_*"):
        if _is_orphaned(region.name):
            with contextlib.suppress(FileNotFoundError, PermissionError):
                region.unlink()
                found += 1
    return found


def _orphaned_stubs() -> Iterator[int]:
    for folder in PROCESSES.glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes()
        except OSError:
            continue  # it ended meanwhile, or belongs to somebody else
        if STUB in command and _is_orphaned(command.decode(errors="replace")):
            yield int(folder.name)


def _is_orphaned(text: str) -> bool:
    """Whether a text names a parent of this namespace that is gone."""
    found = NAME.search(text)
    return found is not None and found[1] == _namespace() and not (PROCESSES / found[2]).exists()


def _namespace() -> str:
    """Of process ids: containers may share memory and not these."""
    try:
        return f"{os.stat('/proc/self/ns/pid').st_ino:x}"
    except OSError:
        return "0"

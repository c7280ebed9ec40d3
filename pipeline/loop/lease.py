"""One run at a time: a lease with a fencing number in SQLite, safe across processes and crashes.

Age is measured by the system's monotonic clock, which all processes of a machine share: a wall clock that jumps
neither frees nor prolongs a lease. A reboot starts that clock anew, and the boot id frees what was held before it.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from core.errors import GateError

BOOT_FILE = Path("/proc/sys/kernel/random/boot_id")
SCHEMA = """CREATE TABLE IF NOT EXISTS lease (
    name TEXT PRIMARY KEY, epoch INTEGER NOT NULL, holder TEXT, renewed REAL NOT NULL, boot TEXT NOT NULL)"""


class Lease:
    """The right to run the loop.

    Args:
        file: The database; made where there is none.
        name: What is leased.
        holder: Who asks; unique per process and run.
        seconds: A lease not renewed for this long may be taken over.
        monotonic_s: Clock.
    """

    def __init__(
        self, file: Path, name: str, holder: str, seconds: float, monotonic_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._file, self._name, self._holder, self._seconds = file, name, holder, seconds
        self._monotonic_s = monotonic_s
        file.parent.mkdir(parents=True, exist_ok=True)

    def take(self) -> int | None:
        """The fencing number, larger than every one before; None while another holds the lease."""
        with self._transaction() as database:
            row = database.execute("SELECT epoch, holder, renewed, boot FROM lease WHERE name = ?", (self._name,))
            found = row.fetchone()
            now, boot = self._monotonic_s(), boot_id()
            epoch = 0
            if found is not None:
                epoch, holder, renewed, held_boot = found
                is_held = holder is not None and held_boot == boot and now - renewed < self._seconds
                if is_held and holder != self._holder:
                    return None
            database.execute(
                "INSERT OR REPLACE INTO lease VALUES (?, ?, ?, ?, ?)",
                (self._name, epoch + 1, self._holder, now, boot),
            )
            return int(epoch) + 1

    def renew(self, epoch: int) -> None:
        """Prolongs the lease. Raises GateError where another has taken it over: this run must not publish."""
        with self._transaction() as database:
            changed = database.execute(
                "UPDATE lease SET renewed = ? WHERE name = ? AND epoch = ? AND holder = ?",
                (self._monotonic_s(), self._name, epoch, self._holder),
            )
            if changed.rowcount == 0:
                raise GateError("another run has taken over", where=str(self._file), expected=f"fencing number {epoch}")

    def release(self, epoch: int) -> None:
        """Gives the lease back; nothing happens where another has taken it over."""
        with self._transaction() as database:
            database.execute(
                "UPDATE lease SET holder = NULL WHERE name = ? AND epoch = ? AND holder = ?",
                (self._name, epoch, self._holder),
            )

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self._file, timeout=10, isolation_level=None)) as database:
            database.execute("BEGIN IMMEDIATE")
            database.execute(SCHEMA)
            try:
                yield database
                database.execute("COMMIT")
            except BaseException:
                database.execute("ROLLBACK")
                raise


def boot_id() -> str:
    """Changes with every boot; empty where the system has none."""
    return BOOT_FILE.read_text(encoding="ascii").strip() if BOOT_FILE.exists() else ""

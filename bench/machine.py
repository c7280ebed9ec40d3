"""What a measurement was made on."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from core.settings import ROOT


@dataclass(frozen=True)
class Machine:
    """Facts that decide how fast it was.

    Attributes:
        cpu: Model name.
        cores: Cores that this process may use.
        memory_gb: Whole memory in GiB.
        system: Kernel and architecture.
    """

    cpu: str
    cores: int
    memory_gb: float
    system: str

    @property
    def line(self) -> str:
        """All of it in one line."""
        return f"{self.cores} cores of {self.cpu}, {self.memory_gb:.0f} GiB memory, {self.system}"


def this_machine(cpuinfo: Path = Path("/proc/cpuinfo")) -> Machine:
    """The machine that runs this."""
    cpu = platform.processor() or platform.machine()
    if cpuinfo.is_file():
        names = [line for line in cpuinfo.read_text(encoding="utf-8").splitlines() if line.startswith("model name")]
        cpu = names[0].split(":", 1)[1].strip() if names else cpu
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return Machine(cpu, len(os.sched_getaffinity(0)), round(memory_gb, 1), f"{platform.system()} {platform.machine()}")


@cache
def measured_commit(root: Path = ROOT) -> str:
    """Git commit with ``+dirty`` where anything but result files was changed; ``unknown`` outside a checkout."""
    run = lambda *args: subprocess.run(  # noqa: E731
        ["git", "-C", str(root), *args], capture_output=True, text=True, check=True, timeout=10
    ).stdout.strip()
    try:
        changed = run("status", "--porcelain", "-uno", "--", ".", ":!bench/results")
        return run("rev-parse", "HEAD") + ("+dirty" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def shown(arguments: list[str]) -> list[str]:
    """The command line for the result file: where things lie on this machine concerns nobody else."""
    shown: list[str] = []
    parts = iter(arguments)
    for text in parts:
        if text in ("--work", "--out"):
            next(parts, None)
            continue
        head, separator, tail = text.rpartition("=")
        shown.append(f"{head}{separator}{Path(tail).name if tail.startswith(('/', '~')) else tail}")
    return shown

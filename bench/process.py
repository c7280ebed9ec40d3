"""A program as a child process: bounded in threads and time, measured in seconds and memory."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from core.settings import ROOT

POLL_SECONDS = 0.05
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


@dataclass(frozen=True)
class Finished:
    """How a child ended.

    Attributes:
        code: Exit code; negative for a signal.
        seconds: Wall time.
        peak_mb: Most memory that it held.
        timed_out: Ended by us.
        tail: Last line that it wrote.
        cpu_seconds: Time of all its threads and of the children that it waited for, in user and kernel mode.
    """

    code: int
    seconds: float
    peak_mb: float
    timed_out: bool
    tail: str
    cpu_seconds: float = 0.0

    @property
    def reason(self) -> str:
        """Why it did not end well, for people."""
        if self.timed_out:
            return f"timed out after {self.seconds:.0f} s"
        return f"exit code {self.code}: {self.tail}" if self.tail else f"exit code {self.code}"


def environment(threads: int) -> dict[str, str]:
    """This process's environment with thread limits; the checkout is importable."""
    limits = dict.fromkeys(THREAD_VARIABLES, str(threads))
    return {**os.environ, **limits, "OMP_WAIT_POLICY": "PASSIVE", "PYTHONPATH": str(ROOT)}


def run_child(
    command: Sequence[str], *, env: Mapping[str, str], timeout_seconds: float, log: Path, folder: Path = ROOT
) -> Finished:
    """Runs a command to its end in ``folder``, the checkout's root by default; what it prints goes to ``log``.

    The child leads its own process group, which is ended as a whole on timeout or interrupt.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    started, cpu_before = time.perf_counter(), _children_seconds()
    with log.open("wb") as stream:
        child = subprocess.Popen(
            list(command), cwd=folder, env=dict(env), stdout=stream, stderr=subprocess.STDOUT, start_new_session=True
        )
        timed_out, peak_mb = False, 0.0
        try:
            while child.poll() is None:
                peak_mb = max(peak_mb, _peak_mb(child.pid))
                if not timed_out and time.perf_counter() - started > timeout_seconds:
                    timed_out = True
                    os.killpg(child.pid, signal.SIGKILL)
                time.sleep(POLL_SECONDS)
        except BaseException:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            raise
    seconds, cpu_seconds = time.perf_counter() - started, _children_seconds() - cpu_before
    return Finished(child.returncode, seconds, peak_mb, timed_out, _last_line(log), cpu_seconds)


def _children_seconds() -> float:
    """CPU time of all children that were waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _peak_mb(pid: int) -> float:
    """The child's high-water mark so far, 0 once it has ended.

    Not getrusage: its figure for a child starts at the memory of the process that forked it.
    """
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return 0.0
    return next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")), 0) / 1024


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").replace("\r", "\n").splitlines()
    return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "")

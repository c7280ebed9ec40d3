"""Leftovers of servers whose parents are gone: only those are taken away."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.processes import end
from serving.orphans import SHARED_MEMORY, region_prefix, sweep

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are told by /proc")


@pytest.fixture(scope="module")
def gone() -> int:
    """Id of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def prefix_of(pid: int) -> str:
    return region_prefix(8001).replace(f"_{os.getpid()}_", f"_{pid}_")


@pytest.fixture
def stubs() -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """Processes that look like stubs, by what their memory is called; started by the tests."""
    started: dict[str, subprocess.Popen[bytes]] = {}
    yield started
    for process in started.values():
        if process.poll() is None:
            end(process, 5)


def start_stub(prefix: str) -> subprocess.Popen[bytes]:
    code = "import sys, time; print(flush=True); time.sleep(60)"
    command = [sys.executable, "-c", code, "triton_python_backend_stub", f"{prefix}region_0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    return process


def test_only_stubs_whose_parent_is_gone_end(gone: int, stubs: dict[str, subprocess.Popen[bytes]]) -> None:
    elsewhere = prefix_of(gone).replace("conch_", "conch_1")  # another namespace of process ids
    for name, prefix in {"orphan": prefix_of(gone), "ours": region_prefix(8001), "elsewhere": elsewhere}.items():
        stubs[name] = start_stub(prefix)
    assert sweep() >= 1
    assert stubs["orphan"].wait(5) == -9
    assert (stubs["ours"].poll(), stubs["elsewhere"].poll()) == (None, None)


def test_only_memory_whose_parent_is_gone_is_removed(gone: int) -> None:
    orphan, ours = (SHARED_MEMORY / f"{prefix}test" for prefix in (prefix_of(gone), region_prefix(1)))
    foreign = SHARED_MEMORY / "conch_of_somebody_else"
    for path in (orphan, ours, foreign):
        path.touch()
    try:
        sweep()
        assert [path.exists() for path in (orphan, ours, foreign)] == [False, True, True]
    finally:
        for path in (orphan, ours, foreign):
            Path(path).unlink(missing_ok=True)

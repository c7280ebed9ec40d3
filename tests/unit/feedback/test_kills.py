"""SIGKILL of the process that stores events, at random moments: what was acknowledged is there, once.

``CONCH_KILLS=1000`` runs as many as the promise says.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from core.sections import FeedbackSettings
from feedback.store import EventStore
from tests.unit.feedback.worlds import KEYS

KILLS = int(os.environ.get("CONCH_KILLS", "25"))
WRITER = """
import os, sys
from pathlib import Path
from core.sections import FeedbackSettings
from feedback.store import EventStore
from tests.unit.feedback.worlds import KEYS, ManualClock, answer, impression

folder, begin, mode = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
shown = impression("r1")
while True:  # each life is a forked child: starting an interpreter 1,000 times takes minutes
    line = sys.stdin.readline()
    if not line:
        break
    begin = int(line)
    child = os.fork()
    if child == 0:
        store = EventStore(folder, KEYS, FeedbackSettings(user_events_per_day=10**9, busy_seconds=30), ManualClock())
        store.append([shown])
        os.write(1, b"up\\n")
        number = begin
        while True:
            batch = [answer(f"e{i}", shown) for i in range(number, number + 7)]
            told = store.append(batch)
            assert all(entry.status in ("stored", "duplicate") for entry in told), told
            os.write(1, b"%d\\n" % (number + 7))
            number += 7
            if mode == "seal" and number % 3 == 0:
                store.seal()
    os.write(1, b"pid %d\\n" % child)
    os.waitpid(child, 0)
    os.write(1, b"dead\\n")
"""


@pytest.mark.parametrize("mode", ["append", "seal"])
def test_killed_writer_loses_no_acknowledged_event_and_stores_none_twice(tmp_path: Path, mode: str) -> None:
    rng, acknowledged, restart_from = random.Random(7), 0, 0
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path / "events"), "0", mode],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
    )  # fmt: skip
    assert writer.stdin is not None
    assert writer.stdout is not None
    for _ in range(max(1, KILLS // 2)):
        writer.stdin.write(f"{restart_from}\n")
        writer.stdin.flush()
        child, up = 0, False
        while not (child and up):
            word = writer.stdout.readline().split()
            assert word, "the writer died by itself"
            if word[0] == "pid":
                child = int(word[1])
            elif word[0] == "up":
                up = True
        time.sleep(rng.uniform(0, 0.02))
        os.kill(child, signal.SIGKILL)
        while (word := writer.stdout.readline().split()) != ["dead"]:
            acknowledged = max(acknowledged, int(word[0]))
        # At-least-once clients send the last batches again: some acknowledged, some perhaps stored and never told.
        restart_from = max(0, acknowledged - 14)
    writer.stdin.close()
    writer.wait(10)
    store = EventStore(tmp_path / "events", KEYS, FeedbackSettings())
    store.seal()
    assert store.verify() == []
    keys = [key for path in store.snapshot().files(tmp_path / "events") for key in _keys(path)]
    feedback = sorted(int(key[1:]) for key in keys if key.startswith("e"))
    assert len(set(keys)) == len(keys)
    assert set(range(acknowledged)) <= set(feedback)
    assert feedback == list(range(len(feedback)))  # nothing half: whole batches only
    assert len(feedback) % 7 == 0
    assert acknowledged > 0
    store.close()


def _keys(path: Path) -> list[str]:
    return pq.read_table(path, columns=["key"])["key"].to_pylist()

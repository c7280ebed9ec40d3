"""What the first worker tells reaches the reader, once, whatever happens to the worker."""

from __future__ import annotations

from pathlib import Path

from tests.suites.recall_suite import RecordingProgress
from training.distributed.relay import Relayed, shown


def test_bars_lines_and_curves_arrive(tmp_path: Path) -> None:
    seen = RecordingProgress()
    with shown(tmp_path / "told", seen):
        relayed = Relayed(tmp_path / "told", restart=0)
        with relayed.bar("gat", 2) as bar:
            bar.advance(note="loss 0.5")
        relayed.record("gat loss", 1, 0.5)
    assert (seen.total, seen.notes, seen.points) == (2, ["loss 0.5"], [("gat loss", 1, 0.5)])


def test_restart_after_a_half_written_line_repeats_nothing(tmp_path: Path) -> None:
    seen = RecordingProgress()
    path = tmp_path / "told"
    with shown(path, seen):
        killed = Relayed(path, restart=0)
        killed.bar("gat", 3).__enter__()
        killed.record("gat loss", 1, 0.5)
        killed._stream.write('{"curve": "gat lo')
        killed._stream.flush()
        again = Relayed(path, restart=1)
        again.record("gat loss", 1, 0.5)
        again.record("gat loss", 2, 0.4)
    assert seen.points == [("gat loss", 1, 0.5), ("gat loss", 2, 0.4)]

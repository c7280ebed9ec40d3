"""Studies whose process is killed for real."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from core.errors import ArtifactError
from core.settings import ROOT
from tests.unit.tuning.studies import HillJob, settings_in, space_of
from training.tuning.journal import JOURNAL, KernelLock
from training.tuning.outcome import Outcome
from training.tuning.stage import run_study

TRIALS = 12
PROGRAM = """
import sys
from pathlib import Path
from tests.unit.tuning.studies import HillJob, settings_in, space_of

if __name__ == "__main__":
    from training.tuning.stage import run_study

    folder, workers = Path(sys.argv[1]), sys.argv[2]
    settings = settings_in(folder, "tune.sampler=random", "tune.trials=12", f"tune.workers={workers}")
    run_study(HillJob(settings, trace=folder / "trace", seconds=0.15), space_of(), "hill", binding_data="data")
"""


def go_on(folder: Path, workers: int = 1) -> Outcome:
    settings = settings_in(folder, "tune.sampler=random", f"tune.trials={TRIALS}", f"tune.workers={workers}")
    return run_study(HillJob(settings, trace=folder / "trace"), space_of(), "hill", binding_data="data")


def kill_amid(folder: Path, measured: int, workers: int = 1) -> None:
    """Starts a study in a process of its own and kills that while it measures for the ``measured``-th time."""
    program = folder / "program.py"
    program.write_text(PROGRAM)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    running = subprocess.Popen([sys.executable, str(program), str(folder), str(workers)], env=environment)
    trace, deadline = folder / "trace", time.monotonic() + 60
    while not (trace.exists() and len(trace.read_text().splitlines()) >= measured):
        assert running.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    running.send_signal(signal.SIGKILL)
    running.wait()


def values(outcome: Outcome) -> list[tuple[object, ...]]:
    return [
        (tuple(trial.values.items()), trial.state, trial.measured and trial.measured.quality)
        for trial in outcome.trials
    ]


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    """Folder and outcome of a study that was killed in its fifth trial and then went on."""
    folder = tmp_path_factory.mktemp("killed")
    kill_amid(folder, 6)
    return folder, go_on(folder)


def test_killed_study_ends_as_if_it_had_not_been_killed(killed: tuple[Path, Outcome], tmp_path: Path) -> None:
    assert values(killed[1]) == values(go_on(tmp_path))


def test_finished_trials_are_not_measured_again(killed: tuple[Path, Outcome]) -> None:
    folder, outcome = killed
    assert len(outcome.trials) == TRIALS
    measured = (folder / "trace").read_text().splitlines()
    assert len(measured) == 1 + TRIALS + 1  # the settings as they were, the trials, the one that was cut short again


def test_study_with_killed_workers_comes_to_its_end(tmp_path: Path) -> None:
    kill_amid(tmp_path, 7, workers=2)
    outcome = go_on(tmp_path)
    assert len(outcome.trials) == TRIALS
    assert all(trial.state in ("complete", "pruned") for trial in outcome.trials)


def test_trial_that_ends_its_process_three_times_is_given_up(tmp_path: Path) -> None:
    from training.tuning.journal import requeue_cut_short
    from training.tuning.stage import plan_of

    plan = plan_of(HillJob(settings_in(tmp_path)), space_of(), "hill")
    for queued in (1, 1, 0):
        study = plan.open()
        study.ask(plan.space.distributions())
        assert requeue_cut_short(study) == queued
    assert "try 3 of 3" in plan.open().trials[-1].user_attrs["reason"]


def test_half_written_last_line_is_cut_off_and_nothing_else(tmp_path: Path) -> None:
    first = go_on(tmp_path)
    journal = tmp_path / "tuning" / "hill" / JOURNAL
    whole = journal.read_bytes()
    journal.write_bytes(whole + b'{"op_code":4,"worker_id":"half a li')
    again = go_on(tmp_path)
    assert values(again) == values(first)
    lock = KernelLock(journal)
    lock.acquire()
    lock.release()
    assert journal.read_bytes().startswith(whole)
    assert journal.read_bytes().endswith(b"\n")


def test_unreadable_journal_is_an_error_that_names_it(tmp_path: Path) -> None:
    folder = tmp_path / "tuning" / "hill"
    folder.mkdir(parents=True)
    (folder / JOURNAL).write_text("this is no journal\nat all\n")
    with pytest.raises(ArtifactError, match=r"journal\.log"):
        go_on(tmp_path)


def test_grid_gives_the_same_whatever_the_number_of_workers(tmp_path: Path) -> None:
    found = []
    for count in (1, 2):
        folder = tmp_path / str(count)
        folder.mkdir()
        options = ("tune.sampler=grid", "tune.grid_points=2", "tune.trials=50", f"tune.workers={count}")
        outcome = run_study(HillJob(settings_in(folder, *options)), space_of(), "hill", binding_data="data")
        found.append((outcome.best.values, outcome.best.quality, sorted(map(repr, values(outcome)))))
    assert found[0] == found[1]


def test_workers_do_not_exceed_the_budget(tmp_path: Path) -> None:
    assert len(go_on(tmp_path, workers=3).trials) == TRIALS

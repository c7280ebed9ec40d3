"""Several processes on one study. The journal is all they share."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from core.errors import TrainingError
from training.tuning.journal import shared_use
from training.tuning.objective import Job
from training.tuning.study import Plan, baseline_of, run_trials

POLL_SECONDS = 0.3


@dataclass(frozen=True)
class Errand:
    """What one worker is to do.

    Attributes:
        plan: How to search.
        job: Builds the objective; its settings already name the worker's share of the threads.
        total: Trials of the study in all.
    """

    plan: Plan
    job: Job
    total: int


def run_workers(errand: Errand, watch: Callable[[], None]) -> None:
    """Runs the plan's number of processes until the study is complete.

    They end with this process, however it ends: a pipe that breaks tells them.

    Args:
        errand: The same for all.
        watch: Called a few times a second.

    Raises:
        TrainingError: A worker ended before its time; what it had finished is in the journal.
    """
    context = multiprocessing.get_context("spawn")
    ours: list[Connection] = []
    workers: list[BaseProcess] = []
    try:
        for number in range(errand.plan.workers):
            kept, given = context.Pipe()
            worker: BaseProcess = context.Process(
                target=_work, args=(errand, given), name=f"tune-{number + 1}", daemon=True
            )
            worker.start()
            given.close()
            ours.append(kept)
            workers.append(worker)
        while any(worker.is_alive() for worker in workers):
            watch()
            time.sleep(POLL_SECONDS)
        watch()
    finally:
        for worker in workers:
            if worker.is_alive():
                worker.terminate()
            worker.join()
        for end in ours:
            end.close()
    broken = [f"{worker.name} with {worker.exitcode}" for worker in workers if worker.exitcode]
    if broken:
        raise TrainingError(
            "a tuning worker ended before its time",
            where=str(errand.plan.place.folder),
            expected="exit code 0",
            found=", ".join(broken),
            next_step="the same command goes on where it stopped, --workers 1 takes least memory",
        )


def _work(errand: Errand, parent: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends its workers
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    with shared_use(errand.plan.place.folder):
        study = errand.plan.open()
        objective = errand.job.build()
        baseline_of(study, errand.plan.place, objective)
        run_trials(study, errand.plan, objective, total=errand.total)


def _end_with(parent: Connection) -> None:
    try:
        parent.recv()
    except (EOFError, OSError):
        os._exit(1)

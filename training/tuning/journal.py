"""The study's journal on disk: what was tried survives any crash.

``var/tuning/<study>/journal.log`` is Optuna's journal, one JSON object a line. Two things make it safe against
``kill -9``: locks that the kernel releases with their process, and a half-written last line that the next writer
cuts off. Optuna's CMA-ES keeps its state in it as a pickle: open only journals that you trust.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.study import Study, StudyDirection
from optuna.trial import TrialState

from core.errors import ArtifactError, SettingsError
from training.tuning.sequence import CUT_SHORT

JOURNAL = "journal.log"
BINDING = "binding"
"""User attribute of a study: what it was started with."""
REASON = "reason"
"""User attribute of trials that failed or were pruned."""
TRIES = "tries"
MOST_TRIES = 3
PATIENCE_SECONDS = 10.0
"""How long a new run waits for the workers of one that was killed to notice and end."""

optuna.logging.set_verbosity(optuna.logging.ERROR)


class KernelLock(JournalFileOpenLock):
    """The right to append, for one process at a time.

    It ends with its process (Optuna's own locks would be waited for half a minute after a crash), and who gets it
    first cuts off a line that the one before left unfinished.

    Args:
        journal: The file that is appended to.
    """

    def __init__(self, journal: Path) -> None:
        super().__init__(str(journal))
        self._journal = journal
        self._kernel_lock = FileLock(journal.with_suffix(".lock"))

    def acquire(self) -> bool:
        self._kernel_lock.acquire()
        _cut_unfinished_line(self._journal)
        return True

    def release(self) -> None:
        self._kernel_lock.release()


def _cut_unfinished_line(file: Path) -> None:
    with file.open("rb+") as stream:
        size = stream.seek(0, os.SEEK_END)
        if size == 0:
            return
        stream.seek(size - 1)
        if stream.read(1) == b"\n":
            return
        stream.seek(0)
        whole = stream.read().rfind(b"\n") + 1
        stream.truncate(whole)


@dataclass(frozen=True)
class StudyPlace:
    """Where a study lives, and what it optimises.

    Attributes:
        folder: ``var/tuning/<study>``.
        directions: One per objective: maximize or minimize.
    """

    folder: Path
    directions: tuple[str, ...]

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    def deviations(self, trial: str) -> Path:
        """Where a trial's deviations are kept, see ``Measurement``."""
        return self.folder / "deviations" / f"{trial}.npy"

    def open(self, sampler: Any = None, pruner: Any = None) -> Study:
        """The study with all trials so far; made where there is none.

        Raises:
            ArtifactError: The journal cannot be read.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / JOURNAL
        try:
            return optuna.create_study(
                study_name=self.name,
                storage=JournalStorage(JournalFileBackend(str(file), lock_obj=KernelLock(file))),
                directions=[StudyDirection[name.upper()] for name in self.directions],
                sampler=sampler,
                pruner=pruner,
                load_if_exists=True,
            )
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError) as error:
            raise ArtifactError(
                "the study's journal cannot be read",
                where=str(file),
                found=str(error),
                next_step="name another --study, or move the folder away",
            ) from None


def bind(study: Study, place: StudyPlace, binding: Mapping[str, Any]) -> None:
    """Writes into a new study what it depends on; refuses an old one that depends on something else.

    Args:
        study: Just opened.
        place: Its folder, for the message.
        binding: Plain JSON values, nested: data, space, settings.

    Raises:
        SettingsError: Names every difference.
    """
    given = json.loads(json.dumps(binding, sort_keys=True, default=str))
    known = study.user_attrs.get(BINDING)
    if known is None:
        study.set_user_attr(BINDING, given)
        return
    before, now = dict(_leaves(known, "")), dict(_leaves(given, ""))
    changed = [
        f"{key}: {before.get(key, 'nothing')} then, {now.get(key, 'nothing')} now"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    ]
    directions = [StudyDirection[name.upper()] for name in place.directions]
    if study.directions != directions:
        changed.append("objectives")
    if changed:
        raise SettingsError(
            f"study {place.name} was started with something else; its trials cannot be compared with new ones",
            where=str(place.folder),
            found="; ".join(changed),
            next_step="name another --study, or move the folder away",
        )


def _leaves(tree: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from _leaves(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, tree


def requeue_cut_short(study: Study) -> int:
    """Fails trials that still count as running though no process is, and queues their settings again.

    Only for a caller that holds :func:`sole_use`.

    A trial whose process ended for the third time is left failed: it may be what ends it.

    Returns:
        How many were queued again.
    """
    lost = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    storage = study._storage
    queued = 0
    for trial in lost:
        tries = trial.user_attrs.get(TRIES, 0) + 1
        again = tries < MOST_TRIES
        storage.set_trial_user_attr(trial._trial_id, REASON, f"its process ended, try {tries} of {MOST_TRIES}")
        if again:
            storage.set_trial_user_attr(trial._trial_id, CUT_SHORT, True)
        storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
        if again:
            study.enqueue_trial(dict(trial.system_attrs.get("fixed_params", trial.params)), {TRIES: tries})
            queued += 1
    return queued


@contextmanager
def sole_use(folder: Path) -> Iterator[None]:
    """Holds the study for one run; its workers hold it as well, see :func:`shared_use`.

    Raises:
        SettingsError: Another run is at work on it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "in-use.lock").open("ab") as stream:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not _try_lock(stream.fileno(), fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                raise SettingsError(
                    f"study {folder.name} is in use by another process",
                    where=str(folder),
                    next_step="wait for it, or name another --study",
                )
            time.sleep(0.05)
        yield


@contextmanager
def shared_use(folder: Path) -> Iterator[None]:
    """What each worker process holds: the next run waits until the last one is gone."""
    with (folder / "workers.lock").open("ab") as stream:
        fcntl.flock(stream.fileno(), fcntl.LOCK_SH)
        yield


def wait_for_workers(folder: Path) -> None:
    """Waits until no worker of an earlier run is left.

    Raises:
        SettingsError: One is still at work.
    """
    with (folder / "workers.lock").open("ab") as stream:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not _try_lock(stream.fileno(), fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                raise SettingsError(
                    f"workers of study {folder.name} are still running", where=str(folder), next_step="end them first"
                )
            time.sleep(0.05)


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True

"""Starts the workers of one fit under torch's elastic agent, and starts them again where one was killed."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from tempfile import mkdtemp
from typing import Protocol

import numba
import torch
import torch.distributed as dist
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException, Std
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, record
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

import core.errors
from core.errors import ConchError, SettingsError, TrainingError
from core.progress import SILENT, Progress
from core.sections import TrainSettings
from training.distributed.group import Group, Workers
from training.distributed.relay import Relayed, shown

PROGRESS, FAILURE, KEEP = "progress.jsonl", "failure.json", "keep"
PATIENCE = timedelta(days=1)
"""Workers wait this long for the first one, which does alone what cannot be shared. A dead one is noticed at once."""
LOOPBACK = "localhost"


@dataclass(frozen=True)
class Seat:
    """What a worker is given.

    Attributes:
        group: All workers.
        device: Its own device, such as cpu or cuda:1.
        folder: The same for all workers and all restarts; the first worker leaves its results there.
        progress: Silent for all but the first.
    """

    group: Group
    device: str
    folder: Path
    progress: Progress


class Task(Protocol):
    """What all workers do, side by side; can be pickled."""

    def __call__(self, seat: Seat) -> None: ...


@contextmanager
def run_workers(task: Task, settings: TrainSettings, var: Path, progress: Progress) -> Iterator[Path]:
    """Runs ``task`` in ``settings.workers`` processes; yields the folder with what the first one left.

    The folder goes afterwards. It stays, with the workers' logs, where they failed for a reason that was not foreseen.

    Args:
        task: See above.
        settings: The section ``train``.
        var: Where the folder is made.
        progress: Where the first worker's bars and lines go.

    Raises:
        ConchError: What a worker raised.
        TrainingError: Workers were killed more than ``restarts`` times, or have a bug.
        SettingsError: More workers than GPUs.
    """
    if settings.device.startswith("cuda") and settings.workers > torch.cuda.device_count():
        raise SettingsError(
            "more workers than GPUs",
            where="train.workers",
            expected=f"at most {torch.cuda.device_count()} with train.device=cuda",
            found=str(settings.workers),
        )
    (var / "workers").mkdir(parents=True, exist_ok=True)
    folder = Path(mkdtemp(prefix="fit-", dir=var / "workers"))
    try:
        with shown(folder / PROGRESS, progress), _own_signals():
            _launch(task, settings, folder)
        yield folder
    finally:
        if not (folder / KEEP).exists():
            shutil.rmtree(folder, ignore_errors=True)


def _launch(task: Task, settings: TrainSettings, folder: Path) -> None:
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=settings.workers,
        run_id=folder.name,
        rdzv_backend="c10d",
        rdzv_endpoint=f"{LOOPBACK}:0",
        local_addr=LOOPBACK,
        max_restarts=settings.restarts,
        start_method="forkserver",
        logs_specs=DefaultLogsSpecs(log_dir=str(folder), redirects=Std.ALL),
    )
    multiprocessing.set_forkserver_preload(["training.distributed.fits"])  # imported once, not by every worker
    for name in ("torch.distributed.elastic", "torch.multiprocessing.spawn"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what they say the relay and the errors tell
    try:
        elastic_launch(config, _work)(task, settings, folder)
    except ChildFailedError as error:
        _raise_failure(folder)
        (folder / KEEP).touch()
        rank, first = error.get_first_failure()
        raise TrainingError(
            "workers failed again and again",
            where=f"worker {rank}, logs in {folder}",
            expected=f"at most {settings.restarts} restarts (train.restarts)",
            found=_first_line(first.message),
            next_step="the same command with --set train.workers=1 tells more",
        ) from None
    _raise_failure(folder)


def _first_line(message: str | dict[str, str]) -> str:
    text = message["message"] if isinstance(message, dict) else message
    return text.strip().splitlines()[0]


@record
def _work(task: Task, settings: TrainSettings, folder: Path) -> None:
    """One worker, from start to end; also the first time after a restart."""
    if (folder / FAILURE).exists():  # a restart cannot mend what the task refused
        return
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C reaches all; the process that was asked tells of it
    threading.Thread(target=_end_with_parent, daemon=True).start()
    device = _use_hardware(settings)
    backend = "gloo" if settings.backend == "gloo" or device == "cpu" else "cpu:gloo,cuda:nccl"
    restart = int(os.environ["TORCHELASTIC_RESTART_COUNT"])
    _meet(backend, restart)
    group = Workers()
    progress: Progress = Relayed(folder / PROGRESS, restart) if group.is_first else SILENT
    try:
        task(Seat(group, device, folder, progress))
    except ConchError as error:
        _leave_failure(error, folder)
        raise
    group.all_reduce_sum(torch.zeros(1))  # nobody leaves before all are done
    dist.destroy_process_group()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _meet(backend: str, restart: int) -> None:
    """Opens the process group over the agent's store.

    The agent keeps one store over all restarts (torch 2.13), in which the addresses of killed workers still stand.
    """
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = dist.PrefixStore(f"restart-{restart}", dist.TCPStore(address, port, is_master=False))
    rank, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    dist.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=PATIENCE)


def _use_hardware(settings: TrainSettings) -> str:
    """Takes this worker's share of the threads; gives back its device."""
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # workers of one machine; its host name may have no address
    threads = max(1, (settings.threads or os.cpu_count() or 1) // settings.workers)
    torch.set_num_threads(threads)
    numba.set_num_threads(min(threads, numba.get_num_threads()))
    if not settings.device.startswith("cuda"):
        return settings.device
    device = f"cuda:{os.environ['LOCAL_RANK']}"
    torch.cuda.set_device(device)
    return device


def _leave_failure(error: ConchError, folder: Path) -> None:
    told = {name: getattr(error, name) for name in ("what", "where", "expected", "found", "next_step")}
    temporary = folder / f"{FAILURE}.{os.getpid()}"
    temporary.write_text(json.dumps({"kind": type(error).__name__, "told": told}), encoding="utf-8")
    temporary.replace(folder / FAILURE)


def _raise_failure(folder: Path) -> None:
    """Raises what a worker left, if one did."""
    path = folder / FAILURE
    if not path.exists():
        return
    failure = json.loads(path.read_text(encoding="utf-8"))
    kind: type[ConchError] = getattr(core.errors, failure["kind"])
    raise kind(failure["told"].pop("what"), **failure["told"])


@contextmanager
def _own_signals() -> Iterator[None]:
    """The agent sets handlers and leaves them (torch 2.13); afterwards the process has its own again."""
    in_main = threading.current_thread() is threading.main_thread()
    signals = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
    before = {one: signal.getsignal(one) for one in signals} if in_main else {}
    try:
        yield
    except SignalException as error:
        if error.sigval == signal.SIGINT:
            raise KeyboardInterrupt from None
        raise SystemExit(128 + error.sigval) from None
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)

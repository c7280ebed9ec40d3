"""Do servers grow under load? Memory, file descriptors and threads of whole process trees, as slopes over time."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType

import numpy as np
import psutil

LEAST_READINGS = 5


@dataclass(frozen=True)
class Growth:
    """Rates over a span, by the median of the slopes of all pairs of readings: a single jump is no leak.

    Attributes:
        memory_mb_per_minute: Resident memory in MiB.
        descriptors_per_minute: Open file descriptors.
        threads_per_minute: Threads.
    """

    memory_mb_per_minute: float
    descriptors_per_minute: float
    threads_per_minute: float

    def by_name(self) -> dict[str, float]:
        """As plain values."""
        return dict(vars(self))


@dataclass(frozen=True)
class Reading:
    """Sums over process trees at a time, in seconds on a monotonic clock."""

    seconds: float
    memory_mb: float
    descriptors: int
    threads: int


class Watch:
    """Reads process trees now and then while the block runs.

    Args:
        pids: First processes of the trees.
        pause_seconds: Between two readings.
    """

    def __init__(self, pids: Sequence[int], pause_seconds: float) -> None:
        self._pids, self._pause_seconds = tuple(pids), pause_seconds
        self.readings: list[Reading] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def growth(self, warm_up_seconds: float) -> Growth | None:
        """Slopes after a warm-up; None where there are too few readings to tell."""
        if not self.readings:
            return None
        begin = self.readings[0].seconds + warm_up_seconds
        return growth_of([one for one in self.readings if one.seconds >= begin])

    def _run(self) -> None:
        while not self._over.is_set():
            self.readings.append(read(self._pids))
            self._over.wait(self._pause_seconds)


def growth_of(readings: Sequence[Reading]) -> Growth | None:
    """Slopes of readings; None where there are fewer than five."""
    if len(readings) < LEAST_READINGS:
        return None
    minutes = np.array([one.seconds for one in readings]) / 60
    first, second = np.triu_indices(len(minutes), 1)
    apart = minutes[second] - minutes[first]

    def slope(values: Sequence[float]) -> float:
        heights = np.array(values, dtype=np.float64)
        return round(float(np.median((heights[second] - heights[first]) / apart)), 3)

    return Growth(
        slope([one.memory_mb for one in readings]),
        slope([one.descriptors for one in readings]),
        slope([one.threads for one in readings]),
    )


def read(pids: Sequence[int]) -> Reading:
    """Sums over the trees now; a process that ends meanwhile counts nothing."""
    memory, descriptors, threads = 0.0, 0, 0
    for pid in pids:
        try:
            family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        except psutil.NoSuchProcess:
            continue
        for one in family:
            try:
                found = (one.memory_info().rss / 2**20, one.num_fds(), one.num_threads())
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
            memory, descriptors, threads = memory + found[0], descriptors + found[1], threads + found[2]
    return Reading(time.monotonic(), memory, descriptors, threads)

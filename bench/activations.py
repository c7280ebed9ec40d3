"""Activations and rollbacks on a real server under load: failed requests, answers that mix releases, time, leaks.

    python -m bench.activations --cycles 50

Makes small synthetic releases, so that the protocol is measured and not the models. Every answer is compared with what
its release answers in process: a mixed one differs.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np

from core.errors import ConchError
from core.sections import PathSettings, ServingSettings
from core.settings import Settings
from serving.control import Control, running_replicas
from serving.local import LocalPipeline
from serving.orphans import SHARED_MEMORY, region_prefix
from serving.pointer import PointerReader, model_of, pointer_file
from serving.publish import Publisher
from serving.server import TritonServer
from tests.sealed_release import seal_release

USERS = ("u2", "u5", "u7", "stranger")
K = 5


class Load:
    """Threads that ask as a gateway does: the pointer's release by name, and the alias."""

    def __init__(self, var: Path, expected: dict[str, dict[str, list[str]]], threads: int) -> None:
        self.counts: Counter[str] = Counter()
        self.latencies_ms: list[float] = []
        self.errors: list[str] = []
        self._var, self._expected = var, expected
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(at,), daemon=True) for at in range(threads)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, at: int) -> None:
        reader = PointerReader(pointer_file(self._var))
        with Control(running_replicas(self._var)[0]) as control:
            while not self._stop.is_set():
                for user in USERS:
                    pointer = reader.current()
                    model = "recommend" if at % 2 else model_of(pointer.stable if pointer else "")
                    self._ask(control, model, user)

    def _ask(self, control: Control, model: str, user: str) -> None:
        started = time.perf_counter()
        try:
            (answer,) = control.recommend(model, [user], [K], [[]])
        except ConchError as error:
            self.counts["failed"] += 1
            self.errors.append(f"{model}: {error.found}")
            return
        self.latencies_ms.append((time.perf_counter() - started) * 1e3)
        items = [item.item_id for item in answer.items]
        mixed = items != self._expected[answer.release][user] or (model != "recommend" and answer.release not in model)
        self.counts["mixed" if mixed else "right"] += 1


def expected_answers(release: Path) -> dict[str, list[str]]:
    """What a release answers in process, per user."""
    with LocalPipeline(release, threads=1) as pipeline:
        return {answer.user_id: [item.item_id for item in answer.items] for answer in pipeline.recommend(USERS, K)}


def footprint(pid: int) -> dict[str, float]:
    """Memory in MB and open files of the server process, and its shared memory regions."""
    status = Path(f"/proc/{pid}/status").read_text()
    resident = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
    regions = sum(1 for _ in SHARED_MEMORY.glob(region_prefix("*") + "*"))
    files = sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
    return {"rss_mb": resident / 1024, "files": files, "regions": regions}


def measure(cycles: int, fresh: int, threads: int) -> dict[str, object]:
    """Runs activations and rollbacks in turn; every ``fresh``-th activation brings a release that was never loaded."""
    with tempfile.TemporaryDirectory(prefix="conch-activations-") as folder:
        var = Path(folder) / "var"
        total = 2 + cycles // fresh
        releases = {f"r{n:06d}": seal_release(var, n).path for n in range(1, total + 1)}
        expected = {name: expected_answers(path) for name, path in releases.items()}
        names = list(releases)
        publisher = Publisher(var, "bench")
        publisher.activate(releases[names[0]], reason="first")
        settings = Settings(paths=PathSettings(var=var), serving=ServingSettings(start_timeout_seconds=60))
        spent: dict[str, list[float]] = {"activate": [], "rollback": []}
        prints, at = [], 1
        with TritonServer(settings, free_ports=True) as server:
            publisher.activate(releases[names[1]], reason="second")
            with Load(var, expected, threads) as load:
                for cycle in range(cycles):
                    started = time.perf_counter()
                    if cycle % 2:
                        publisher.rollback(reason="bench")
                        spent["rollback"].append(time.perf_counter() - started)
                    else:
                        at = min(at + (cycle % (2 * fresh) == 0), total - 1)
                        publisher.activate(releases[names[at]], reason="bench", unblessed=True)
                        spent["activate"].append(time.perf_counter() - started)
                    prints.append(footprint(server.pid))
                    print(f"cycle {cycle + 1}: {dict(load.counts)}", file=sys.stderr)  # noqa: T201
        half = len(prints) // 2 if len(prints) >= 4 else 0  # a line needs two points
        slope = {key: float(np.polyfit(range(len(prints) - half), [p[key] for p in prints[half:]], 1)[0])
                 for key in prints[0]}  # fmt: skip
        return {
            "cycles": cycles,
            "requests": sum(load.counts.values()),
            "failed": load.counts["failed"],
            "mixed": load.counts["mixed"],
            "errors": load.errors[:5],
            "p50_ms": float(np.percentile(load.latencies_ms, 50)),
            "p99_ms": float(np.percentile(load.latencies_ms, 99)),
            "max_ms": max(load.latencies_ms),
            **{f"{name}_seconds_{label}": float(np.percentile(values, q)) for name, values in spent.items()
               for label, q in (("p50", 50), ("max", 100))},
            "first": prints[0], "last": prints[-1], "slope_per_cycle_second_half": slope,
        }  # fmt: skip


def main() -> None:
    """Prints the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cycles", type=int, default=50)
    parser.add_argument("--fresh", type=int, default=4, help="every so many activations bring a new release")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    print(json.dumps(measure(options.cycles, options.fresh, options.threads), indent=1))  # noqa: T201


if __name__ == "__main__":
    main()

"""Events a second that the event store takes from JSON, by one and two processes, and how quickly a history is read.

    .venv/bin/python -m bench.ingest

Each process parses JSON, checks signatures and appends to the same store; every batch is one synced commit.
"""

from __future__ import annotations

import multiprocessing
import shlex
import statistics
import sys
import tempfile
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from bench.machine import measured_commit, shown, this_machine
from core.artifacts import write_json
from core.feedback import Feedback, Impression, Place, canonical, parse_event
from core.feedback_keys import FeedbackKeys
from core.feedback_tokens import TokenKeys, issue_token
from core.feedback_users import user_ref
from core.sections import FeedbackSettings, LabelSettings
from feedback.labels import label
from feedback.store import EventStore
from pipeline.cli import guarded

KEYS = FeedbackKeys(b"p" * 32, TokenKeys((b"t" * 32,)))
SETTINGS = FeedbackSettings(busy_seconds=60)
ITEMS = tuple(f"item-{number}" for number in range(10))
ANSWERS = 4
"""Per slate of ten."""

app = typer.Typer(add_completion=False)


def made_events(count: int, users: int, seed: int) -> list[bytes]:
    """Slates and their answers as JSON; ids differ between seeds."""
    rng = np.random.default_rng(seed)
    now_ms = time.time_ns() // 1_000_000
    bodies: list[bytes] = []
    slate = tuple(
        Place(position=place, item=item, score=1.0 / place, propensity=0.5, source="mf")
        for place, item in enumerate(ITEMS, 1)
    )
    for number in range(count // (1 + ANSWERS)):
        user, request = user_ref(str(rng.integers(users)), KEYS.pseudonym), f"{seed}-{number}"
        token = issue_token(KEYS.tokens, request, user, ITEMS, now_ms // 1_000 + 3_600)
        shown = Impression(
            request_id=request, user_ref=user, event_time_ms=now_ms, release="r1", ensemble="recommend.r1",
            slate=slate, latency_ms=3.0,
        )  # fmt: skip
        bodies.append(canonical(shown))
        for answer in range(ANSWERS):
            click = Feedback(
                event_id=f"{seed}-{number}-{answer}", type="click", user_ref=user, event_time_ms=now_ms,
                request_id=request, token=token, item=ITEMS[answer],
            )  # fmt: skip
            bodies.append(canonical(click))
    return bodies


def _ingest(folder: Path, bodies: list[bytes], batch: int, ready: Any, go: Any) -> None:
    store = EventStore(folder, KEYS, SETTINGS)
    ready.release()
    go.wait()
    for begin in range(0, len(bodies), batch):
        told = store.append([parse_event(body) for body in bodies[begin : begin + batch]])
        assert all(entry.status == "stored" for entry in told)
    store.close()


def ingested_per_second(folder: Path, parts: list[list[bytes]], batch: int) -> float:
    """Events a second with a process per part."""
    context = multiprocessing.get_context("fork")
    ready, go = context.Semaphore(0), context.Event()
    workers = [context.Process(target=_ingest, args=(folder, part, batch, ready, go)) for part in parts]
    for worker in workers:
        worker.start()
    for _ in workers:
        ready.acquire()
    begun = time.perf_counter()
    go.set()
    for worker in workers:
        worker.join()
    if any(worker.exitcode for worker in workers):
        raise RuntimeError("a process that ingests failed")
    return sum(map(len, parts)) / (time.perf_counter() - begun)


@app.command()
def ingest(
    events: Annotated[int, typer.Option(help="Events per turn.", min=1_000)] = 100_000,
    users: Annotated[int, typer.Option(help="Users.", min=1)] = 20_000,
    batch: Annotated[int, typer.Option(help="Events per commit.", min=1)] = 2_000,
    turns: Annotated[int, typer.Option(help="Turns, one and two processes in each.", min=1)] = 5,
    out: Annotated[Path, typer.Option(help="Result file.")] = Path("bench/results/ingest.json"),
) -> None:
    """Measure and write the result."""
    rates: dict[str, list[float]] = {"1": [], "2": []}
    with tempfile.TemporaryDirectory(prefix="conch-ingest-") as root:
        for turn in range(turns):
            for processes, found in rates.items():
                bodies = made_events(events, users, 10 * turn + int(processes))
                parts = [bodies[part :: int(processes)] for part in range(int(processes))]
                folder = Path(root) / f"{turn}-{processes}"
                found.append(ingested_per_second(folder, parts, batch))
                typer.echo(f"turn {turn}, {processes} processes: {found[-1]:,.0f} events/s")
        store = EventStore(folder, KEYS, SETTINGS)
        reads = []
        for number in range(2_000):
            reference = user_ref(str(number % users), KEYS.pseudonym)
            begun = time.perf_counter()
            store.newest([reference], 50)
            reads.append((time.perf_counter() - begun) * 1_000)
        begun = time.perf_counter()
        sealed = store.seal()
        sealing = time.perf_counter() - begun
        begun = time.perf_counter()
        labels = label(folder, store.snapshot(), LabelSettings())
        labelling = time.perf_counter() - begun
        store.close()
    result = {
        "command": shlex.join(["python", "-m", "bench.ingest", *shown(sys.argv[1:])]),
        "machine": asdict(this_machine()),
        "date": datetime.now(UTC).date().isoformat(),
        "commit": measured_commit(),
        "batch": batch,
        "events_per_turn": events,
        "events_per_second": {
            name: {"median": statistics.median(found), "least": min(found), "most": max(found)}
            for name, found in rates.items()
        },
        "history_read_ms": {"p50": float(np.percentile(reads, 50)), "p99": float(np.percentile(reads, 99))},
        "sealed_events_per_second": sealed.events / sealing,
        "labelled_events_per_second": sealed.events / labelling,
        "labels": labels.counts.labels,
    }
    write_json(out, result)
    typer.echo(f"ingest: wrote {out}")


if __name__ == "__main__":
    sys.exit(guarded(app))

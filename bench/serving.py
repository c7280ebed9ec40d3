"""Serving speed beside what a user would pick instead: `make bench-serving`, or

    .venv/bin/python -m bench.serving --name ml-1m-half --var var

The same release, users and k for everyone, all of them up in one run, asked in turns: bare ONNX Runtime in this process
(the graphs alone: the limit), FastAPI over ONNX Runtime (computing in a thread, and in the event loop), FastAPI over
torch eager, and Triton's `recommend` over gRPC. One thread per graph everywhere. Requests are ready-made bytes, answers
are read as bytes; before the clock starts the peers' answers are compared with ours.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from bench.machine import measured_commit, shown, this_machine
from bench.serving_load import Cell, measure
from bench.serving_peers.bare import BareGraphs
from bench.serving_peers.running import Peer, triton_peer, web_peer
from bench.serving_verdicts import BARE, FASTAPI, INLINE, TORCH, TRITON, verdicts
from core.artifacts import latest_artifact, write_json
from core.dataset import load_dataset
from core.errors import ServerError
from core.settings import ROOT, load_settings
from loadtests.stages import step_times
from loadtests.traffic import Traffic
from pipeline.cli import guarded
from pipeline.publish import find_release

K = 10
BODIES = 256
"""Different requests that are asked in turn."""
CELLS = ((1, 1), (1, 16), (64, 1))
"""Users per request, clients at once."""
COMPARED_USERS = 32
LEAST_AGREEMENT = 0.98
"""Share of equal places in the lists: floats of torch and ONNX Runtime break near ties differently."""
WARM_SECONDS = 0.3

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def run(
    name: Annotated[str, typer.Option(help="Of the result file.")],
    var: Annotated[Path, typer.Option(help="paths.var with a release that is live.")] = Path("var"),
    rounds: Annotated[int, typer.Option(min=1, help="Turns of every peer.")] = 5,
    seconds: Annotated[float, typer.Option(min=0.2, help="Of a turn.")] = 2.0,
    set_: Annotated[list[str] | None, typer.Option("--set", "-s", help="A setting; may repeat.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of the result.")] = ROOT / "bench" / "results",
) -> None:
    """Measure ours and the peers, and judge the ratios."""
    load_before = os.getloadavg()[0]
    settings = load_settings((), (f"paths.var={var.resolve()}", *(set_ or ())))
    release = find_release(var, None).path
    users = _users(var)
    with contextlib.ExitStack() as stack:
        began = time.perf_counter()
        bare = stack.enter_context(BareGraphs(release, threads=1))
        start = time.perf_counter() - began
        contexts = {size: [bare.prepared(part) for part in users[size]] for size in users}
        peers = [Peer(BARE, lambda size: bare.asker(contexts[size]), bare.lists, start, os.getpid())]
        for peer, engine, extra in ((FASTAPI, "onnx", ()), (INLINE, "onnx", ("--inline",)), (TORCH, "torch", ())):
            command = ("--engine", engine, "--release", str(release), "--var", str(var), *extra)
            peers.append(stack.enter_context(web_peer(peer, command, users, K)))
        peers.append(stack.enter_context(triton_peer(TRITON, settings, users, K)))
        agreement = _agreement(bare, peers, [user for (user,) in users[1][:COMPARED_USERS]])
        turns, steps = _turns(peers, rounds, seconds)
        result = {
            "title": f"Serving speed, {name}: {bare.info.n_items:,} items, k {K}, one thread per graph",
            "date": f"{datetime.now(UTC):%Y-%m-%d}",
            "machine": asdict(this_machine()),
            "load_average": {"before": round(load_before, 2), "after": round(os.getloadavg()[0], 2)},
            "commit": measured_commit(),
            "command": shlex.join(["python", "-m", "bench.serving", *shown(sys.argv[1:])]),
            "settings": list(set_ or ()),
            "agreement": agreement,
            "rows": {peer.name: _row(peer, turns[peer.name]) for peer in peers},
            "triton_steps_ms": steps,
            "verdicts": [asdict(one) for one in verdicts(turns)],
        }
    write_json(out / f"serving-{name}.json", result)
    typer.echo(json.dumps({part: result[part] for part in ("rows", "triton_steps_ms", "verdicts")}, indent=1))


def _turns(
    peers: Sequence[Peer], rounds: int, seconds: float
) -> tuple[dict[str, dict[str, list[Cell]]], dict[str, Any]]:
    """Cells by peer and kind, one per round; and Triton's milliseconds by step and part per kind, over all rounds."""
    turns: dict[str, dict[str, list[Cell]]] = {peer.name: {} for peer in peers}
    steps: dict[str, Any] = {}
    for number in range(rounds):
        for batch, clients in CELLS:
            kind = f"batch {batch}, {clients} at once"
            for peer in (*peers[number % len(peers) :], *peers[: number % len(peers)]):  # nobody is always first
                if peer.name == BARE and clients > 1:
                    continue
                before = step_times(peer.address) if peer.address else {}
                cell = measure([peer.asker(batch) for _ in range(clients)], batch, seconds, WARM_SECONDS)
                turns[peer.name].setdefault(kind, []).append(cell)
                if peer.address:
                    after = {name: step.since(before.get(name)) for name, step in step_times(peer.address).items()}
                    steps[kind] = {name: step.milliseconds for name, step in after.items() if step.requests}
    return turns, steps


def _row(peer: Peer, cells: dict[str, list[Cell]]) -> dict[str, Any]:
    kinds = {}
    for kind, turns in cells.items():
        values = {field: [getattr(cell, field) for cell in turns] for field in Cell.__dataclass_fields__}
        kinds[kind] = {
            field: {"median": round(float(np.median(of)), 3), "least": min(of), "most": max(of)}
            for field, of in values.items()
        }
    return {"start_seconds": round(peer.start_seconds, 2), "memory_mb": peer.memory_mb, "cells": kinds}


def _users(var: Path) -> dict[int, list[list[str]]]:
    """Requests by size: users by a power law, one in twenty unknown."""
    dataset = load_dataset(latest_artifact(var, "dataset"))
    counts = np.bincount(dataset.events.user_rows, minlength=dataset.n_users)
    known = dataset.users.ids[np.argsort(-counts, kind="stable")].tolist()
    traffic = Traffic(known, 1.0, 0.05, np.random.default_rng(0))
    return {size: [traffic.draw(size) for _ in range(BODIES // size or 1)] for size in {batch for batch, _ in CELLS}}


def _agreement(bare: BareGraphs, peers: Sequence[Peer], users: list[str]) -> dict[str, float]:
    """Share of places where a peer's lists hold the item that the release answers in this process.

    Raises:
        ServerError: Too few: then it is not the same work.
    """
    expected = np.array(bare.lists(users))
    shares = {peer.name: round(float((np.array(peer.lists(users)) == expected).mean()), 4) for peer in peers}
    worst = min(shares, key=lambda name: shares[name])
    if shares[worst] < LEAST_AGREEMENT:
        raise ServerError("a peer answers something else", where=worst, found=f"{shares[worst]:.1%} of the same items")
    return shares


if __name__ == "__main__":
    sys.exit(guarded(app))

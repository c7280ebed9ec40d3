"""Peers: their settings chosen on valid, then trained on everything that may be learned, one process at a time."""

from __future__ import annotations

import itertools
import json
import os
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from bench.adapters.contract import NOT_RUN, write_problem
from bench.cache import code_digest, digest, find, finish
from bench.environments import EnvironmentFailedError, PeerEnvironment, ensure
from bench.process import environment, run_child
from bench.rows import Row, Run, Say, missing
from bench.scoring import LONGEST, BadListsError, Question, per_user
from core.artifacts import sha256_of, write_json
from core.settings import ROOT

FILE = ROOT / "bench" / "peers.toml"
Grid = dict[str, list[Any]]


class Peer(BaseModel):
    """One entry of peers.toml.

    Attributes:
        adapter: Module in bench.adapters.
        environment: Requirements file in bench/peers; none runs in this project's environment.
        seeded: Depends on chance.
        needs_times: Cannot run on data without times.
        grid: Values per setting; every combination is tried on valid.
        grids: Other grids for named protocols.
        most_seeds: Protocols on which it is too slow for all seeds, and how many of them it gets.
        left_out: Protocols that it is not run on, and why.
        timeout_seconds: For one process, the whole grid or one seed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    adapter: str
    environment: str | None = None
    seeded: bool = False
    needs_times: bool = False
    grid: Grid = {}
    grids: dict[str, Grid] = {}
    most_seeds: dict[str, int] = {}
    left_out: dict[str, str] = {}
    timeout_seconds: float = 900

    def candidates(self, protocol: str) -> list[dict[str, Any]]:
        """Every combination of the grid of a protocol, in the file's order."""
        grid = self.grids.get(protocol, self.grid)
        return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def read_peers(file: Path = FILE) -> dict[str, Peer]:
    """All peers in the file's order."""
    return {name: Peer.model_validate(table) for name, table in tomllib.loads(file.read_text(encoding="utf-8")).items()}


class NotRunError(Exception):
    """A peer that gave no lists; ``failed`` where it should have."""

    def __init__(self, reason: str, *, failed: bool) -> None:
        super().__init__(reason)
        self.failed = failed


@dataclass(frozen=True)
class Bench:
    """What all peers of one run share.

    Attributes:
        protocol: Name.
        valid: Learn from train, predict valid; for choosing.
        test: The protocol's own question.
        has_times: Whether the data has times.
        choose_by: Metric on valid.
        group: Users that it is taken over.
        folder: Where runs lie.
        environments: Where environments lie.
        threads: Limit for each process.
        seeds: For peers that depend on chance.
        resume: Take finished runs that nothing has changed for.
        say: Progress.
    """

    protocol: str
    valid: Question
    test: Question
    has_times: bool
    choose_by: str
    group: str
    folder: Path
    environments: Path
    threads: int
    seeds: tuple[int, ...]
    resume: bool
    say: Say


def run_peer(name: str, peer: Peer, bench: Bench) -> Row:
    """Chooses settings, trains every seed; a peer that fails gives a row with the reason."""
    if bench.protocol in peer.left_out:
        return missing(name, peer.left_out[bench.protocol], failed=False)
    if peer.needs_times and not bench.has_times:
        return missing(name, "the data has no times", failed=False)
    try:
        ready = ensure(peer.environment, bench.environments)
        return _run(name, peer, bench, ready)
    except EnvironmentFailedError as error:
        return missing(name, str(error))
    except NotRunError as error:
        return missing(name, str(error), failed=error.failed)
    except BadListsError as error:
        return missing(name, f"refused: {error}")


def _run(name: str, peer: Peer, bench: Bench, ready: PeerEnvironment) -> Row:
    candidates = peer.candidates(bench.protocol)
    chosen = candidates[0]
    tuning: dict[str, Any] = {"tried": len(candidates)}
    if len(candidates) > 1:
        folder, facts = _solve(name, peer, bench, ready, bench.valid, "valid", candidates, seed=0)
        scores = [
            float(per_user(bench.valid, _lists(folder / f"{n}.npz"))[bench.group][bench.choose_by].mean())
            for n in range(len(candidates))
        ]
        best = int(np.argmax(scores))
        chosen = candidates[best]
        tuning |= {
            "metric": f"{bench.choose_by} on valid",
            "best": round(scores[best], 5),
            "seconds": round(facts["seconds"], 1),
            "all": [{**one, bench.choose_by: round(s, 5)} for one, s in zip(candidates, scores, strict=True)],
        }
        bench.say(f"{name}: chose {chosen} of {len(candidates)} ({bench.choose_by} {scores[best]:.4f} on valid)")
    runs = []
    seeds = bench.seeds[: peer.most_seeds.get(bench.protocol, len(bench.seeds))]
    for seed in seeds if peer.seeded else (0,):
        folder, facts = _solve(name, peer, bench, ready, bench.test, "test", [chosen], seed=seed)
        own = {k: v for k, v in facts["solved"][0].items() if k not in ("place", "settings", "fit_seconds")}
        runs.append(
            Run(
                seed if peer.seeded else None,
                folder / "0.npz",
                facts["solved"][0]["fit_seconds"],
                facts["peak_mb"],
                facts["measured_at"],
                facts["commit"],
                own,
            )
        )
        bench.say(f"{name}: seed {seed}, trained in {runs[-1].seconds:.1f} s, {runs[-1].peak_mb:.0f} MB")
    return Row(name, False, tuple(runs), chosen, tuning, facts["versions"])


def _solve(
    name: str,
    peer: Peer,
    bench: Bench,
    ready: PeerEnvironment,
    asked: Question,
    split: str,
    settings: Sequence[dict[str, Any]],
    *,
    seed: int,
) -> tuple[Path, dict[str, Any]]:
    """One process of the adapter, or its finished result."""
    bench.folder.mkdir(parents=True, exist_ok=True)
    problem = bench.folder / f"problem-{split}.npz"
    temporary = problem.with_name(f".{split}-{os.getpid()}.npz")
    write_problem(temporary, asked.problem)
    temporary.replace(problem)
    files = ("bench/adapters/contract.py", f"bench/adapters/{peer.adapter}.py")
    key = digest([code_digest(files), ready.digest, list(settings), seed, bench.threads, sha256_of(problem)])
    folder = bench.folder / name / f"{split}-{key}"
    facts = find(folder) if bench.resume else None
    if facts is None:
        folder.mkdir(parents=True, exist_ok=True)
        request = folder / "request.json"
        write_json(
            request,
            {"problem": str(problem), "settings": list(settings), "k": LONGEST, "seed": seed, "out": str(folder)},
        )
        done = run_child(
            [str(ready.python), "-m", f"bench.adapters.{peer.adapter}", str(request)],
            env=environment(bench.threads),
            timeout_seconds=peer.timeout_seconds,
            log=folder / "log.txt",
            folder=folder,  # RecBole leaves its own logs where it runs
        )
        if done.code == NOT_RUN and not done.timed_out:
            raise NotRunError(json.loads((folder / "facts.json").read_text(encoding="utf-8"))["not_run"], failed=False)
        if done.code:
            raise NotRunError(done.reason, failed=True)
        own = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
        facts = finish(folder, {**own, "seconds": done.seconds})
    return folder, facts


def _lists(file: Path) -> np.ndarray:
    with np.load(file, allow_pickle=False) as data:
        lists: np.ndarray = data["lists"]
    return lists

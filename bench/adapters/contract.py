"""What every peer's program has in common: a request file in, lists of items and facts out.

``python -m bench.adapters.NAME REQUEST.json`` reads the problem (pairs to learn from, users to answer) and the settings
to try, and writes ``OUT/<n>.npz`` with the lists of the n-th settings and ``OUT/facts.json``. The scores are the
peer's; masking, ties and the fallback for users without events are the same for all of them and happen here.
"""

from __future__ import annotations

import json
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

NOT_RUN = 3
"""Exit code of a peer that says why it cannot run."""

BLOCK_CELLS = 4_000_000
"""Most scores held at once when lists are made: users are answered in blocks."""

Settings = dict[str, Any]


class CannotRunError(Exception):
    """The peer does not fit this problem; its text is the reason."""


@dataclass(frozen=True)
class Problem:
    """What to learn from and whom to answer; all rows are 0-based.

    Attributes:
        n_users: U.
        n_items: I.
        user_rows: Users of the fitted pairs int32 ``(pairs,)``, in time order where the data has times.
        item_rows: Their items int32 ``(pairs,)``.
        timestamps: Seconds float64 ``(pairs,)``, 0 throughout where the data has no times.
        seen: Pairs that are no answer, bool sparse ``(U, I)``; holds the fitted ones.
        query_users: Users to answer int64 ``(Q,)``.
    """

    n_users: int
    n_items: int
    user_rows: np.ndarray
    item_rows: np.ndarray
    timestamps: np.ndarray
    seen: sp.csr_matrix
    query_users: np.ndarray

    def matrix(self, dtype: type = np.float32) -> sp.csr_matrix:
        """Fitted pairs as ones, ``(U, I)``."""
        ones: np.ndarray = np.ones(len(self.user_rows), dtype=dtype)
        return sp.csr_matrix((ones, (self.user_rows, self.item_rows)), shape=(self.n_users, self.n_items))


@dataclass(frozen=True)
class Solved:
    """One settings' model.

    Attributes:
        place: Which of the asked settings, from 0.
        score: Takes user rows ``(B,)``, gives scores ``(B, I)``, higher is better.
        fit_seconds: What training took.
        facts: Further numbers, for example seconds per epoch.
    """

    place: int
    score: Callable[[np.ndarray], np.ndarray]
    fit_seconds: float
    facts: dict[str, float] = field(default_factory=dict)


Solve = Callable[[Problem, Sequence[Settings], int], Iterator[Solved]]
"""Takes the problem, the settings to try and a seed; yields each model as soon as it is trained."""


def read_problem(file: Path) -> Problem:
    """Reads what :func:`write_problem` wrote."""
    with np.load(file, allow_pickle=False) as data:
        n_users, n_items = (int(size) for size in data["sizes"])
        seen = sp.csr_matrix(
            (np.ones(len(data["seen_users"]), dtype=bool), (data["seen_users"], data["seen_items"])),
            shape=(n_users, n_items),
        )
        return Problem(
            n_users,
            n_items,
            data["user_rows"],
            data["item_rows"],
            data["timestamps"],
            seen,
            data["query_users"],
        )


def write_problem(file: Path, problem: Problem) -> None:
    """Writes a problem as npz."""
    seen = problem.seen.tocoo()
    np.savez_compressed(
        file,
        sizes=np.array([problem.n_users, problem.n_items]),
        user_rows=problem.user_rows,
        item_rows=problem.item_rows,
        timestamps=problem.timestamps,
        seen_users=seen.row,
        seen_items=seen.col,
        query_users=problem.query_users,
    )


def top_lists(problem: Problem, score: Callable[[np.ndarray], np.ndarray], k: int) -> np.ndarray:
    """The best unseen items per query user.

    Users without fitted events get items by their number of fitted events, whatever the peer would say of them.

    Args:
        problem: Users and what they have seen.
        score: See :class:`Solved`.
        k: Length of the lists.

    Returns:
        int32 ``(Q, k)``, best first, ties to the lower row, -1 where a list is short.

    Raises:
        ValueError: A score that is not finite.
    """
    counts = np.bincount(problem.item_rows, minlength=problem.n_items).astype(np.float64)
    warm = np.bincount(problem.user_rows, minlength=problem.n_users) > 0
    lists = np.full((len(problem.query_users), k), -1, dtype=np.int32)
    step = max(1, BLOCK_CELLS // problem.n_items)
    for start in range(0, len(lists), step):
        users = problem.query_users[start : start + step]
        given = np.asarray(score(users)).reshape(len(users), problem.n_items)
        scores = given.astype(given.dtype if given.dtype.kind == "f" else np.float64)
        scores[~warm[users]] = counts
        if not np.isfinite(scores).all():
            raise ValueError("the peer gave scores that are not finite")
        scores[problem.seen[users].toarray()] = -np.inf
        lists[start : start + step] = _best(scores, k)
    return lists


def peak_mb() -> float:
    """Most memory that this process held. Not getrusage: its figure starts at that of the process that forked this."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")) / 1024


def _best(scores: np.ndarray, k: int) -> np.ndarray:
    """Rows of the k largest per line, best first, ties to the lower row, -1 for masked ones."""
    width = min(k, scores.shape[1])
    found = np.full((len(scores), k), -1, dtype=np.int32)
    cut = np.partition(scores, -width, axis=1)[:, -width]
    for line, (row, least) in enumerate(zip(scores, cut, strict=True)):
        candidates = np.flatnonzero(row >= least)
        best = candidates[np.argsort(-row[candidates], kind="stable")][:width]
        best = best[np.isfinite(row[best])]
        found[line, : len(best)] = best
    return found


def serve(solve: Solve, packages: Sequence[str], argv: Sequence[str] | None = None) -> None:
    """Runs one request to its end and leaves the process with its exit code.

    Args:
        solve: The peer.
        packages: Distributions whose versions the facts name.
        argv: Command line; the process's own by default.
    """
    request_file = Path((sys.argv[1:] if argv is None else argv)[0])
    request = json.loads(request_file.read_text(encoding="utf-8"))
    out = Path(request["out"])
    out.mkdir(parents=True, exist_ok=True)
    facts: dict[str, Any] = {"versions": {"python": platform.python_version()}, "solved": []}
    for name in packages:
        facts["versions"][name] = metadata.version(name)
    try:
        problem = read_problem(Path(request["problem"]))
        for solved in solve(problem, request["settings"], int(request["seed"])):
            started = time.perf_counter()
            lists = top_lists(problem, solved.score, int(request["k"]))
            np.savez_compressed(out / f"{solved.place}.npz", lists=lists)
            facts["solved"].append(
                {
                    "place": solved.place,
                    "settings": request["settings"][solved.place],
                    "fit_seconds": solved.fit_seconds,
                    "recommend_seconds": time.perf_counter() - started,
                    **solved.facts,
                }
            )
    except CannotRunError as error:
        facts["not_run"] = str(error)
    facts["peak_mb"] = peak_mb()
    (out / "facts.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    sys.exit(NOT_RUN if "not_run" in facts else 0)

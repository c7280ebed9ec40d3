"""Asks two releases about the same users of a later window, as they would be asked live.

Both get what the users did between their own training data and the window as the session, which is what the gateway
hands over: a release that is days old still knows what its users did today.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from core.dataset import Dataset
from core.errors import GateError
from core.metrics import Truth, coverage, hits, mrr, ndcg, recall, truth_of
from pipeline.gate.offline import Comparison, Measured
from pipeline.gate.rules import OfflineRules
from pipeline.question import held_out, item_slices, user_slices
from pipeline.report.calibration import calibrate_probabilities, reliability
from serving.local import POPULARITY, LocalPipeline

WINDOW, RECENT_ITEMS = "test", 200


@dataclass(frozen=True)
class Window:
    """The users of a later window, and everything that is known before it.

    Attributes:
        dataset: The challenger's; its window split is ``test``.
        user_rows: int64 ``(U,)``.
        truth: Their items in the window.
        slices: bool ``(U,)`` by name.
        tail: bool ``(I,)``.
        start: Time of the window's first event.
    """

    dataset: Dataset
    user_rows: np.ndarray
    truth: Truth
    slices: dict[str, np.ndarray]
    tail: np.ndarray
    start: float


def later_window(dataset: Dataset, fit: tuple[str, ...], max_users: int, rng: np.random.Generator) -> Window:
    """The window after everything that was learned from.

    Raises:
        GateError: The window is part of what was learned from, or overlaps it in time: then its result is no evidence.
    """
    events = dataset.events
    fitted, later = events.of_splits(fit), events.of_splits((WINDOW,))
    if WINDOW in fit:
        raise GateError(
            "the challenger learned from the window that judges it", where="train.fit", found=", ".join(fit)
        )
    start = float(later.timestamps.min()) if len(later) else float("inf")
    if dataset.has_times and len(fitted) and float(fitted.timestamps.max()) > start:
        raise GateError("training data reaches into the later window", found=f"an event at or after {start:.0f}")
    question = held_out(dataset, fit, WINDOW)
    chosen = np.arange(len(question.user_rows))
    if len(chosen) > max_users:
        chosen = np.sort(rng.choice(chosen, max_users, replace=False))
    owners = np.repeat(np.arange(len(question.truth.sizes)), question.truth.sizes)
    place = np.full(len(question.user_rows), -1)
    place[chosen] = np.arange(len(chosen))
    kept = place[owners] >= 0
    truth = truth_of(place[owners[kept]], question.truth.item_rows[kept], len(chosen))
    slices = {name: mask[chosen] for name, mask in user_slices(question).items()}
    tail = item_slices(np.bincount(fitted.item_rows, minlength=dataset.n_items))["tail"]
    owners, rows = np.repeat(np.arange(len(chosen)), truth.sizes), truth.item_rows
    slices["takes tail items"] = np.bincount(owners, tail[rows], minlength=len(chosen)) > 0
    return Window(dataset, question.user_rows[chosen], truth, slices, tail, start)


def known_until(dataset: Dataset, fit: tuple[str, ...]) -> float:
    """Time of the newest event that a release learned from."""
    return float(dataset.events.of_splits(fit).timestamps.max(initial=0.0))


def ask(pipeline: LocalPipeline, window: Window, since: float, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Lists of item rows and their scores, both ``(U, k)``, -1 and NaN where a list is short.

    Args:
        pipeline: A release.
        window: Whom to ask about.
        since: The release knows events up to here; later ones before the window are its session.
        k: Length of the lists.
    """
    dataset = window.dataset
    before = dataset.events.where(dataset.events.timestamps < window.start)
    seen = before.where(np.isin(before.user_rows, window.user_rows))
    place = np.full(dataset.n_users, -1)
    place[window.user_rows] = np.arange(len(window.user_rows))
    session: list[list[str]] = [[] for _ in window.user_rows]
    exclude: list[list[str]] = [[] for _ in window.user_rows]
    for user, item, time in zip(place[seen.user_rows], seen.item_rows, seen.timestamps, strict=True):
        exclude[user].append(str(dataset.items.ids[item]))
        if time > since:
            session[user].append(str(dataset.items.ids[item]))
    row_of = {str(item): row for row, item in enumerate(dataset.items.ids)}
    users = [str(user) for user in dataset.users.ids[window.user_rows]]
    rows, scores = np.full((len(users), k), -1, np.int64), np.full((len(users), k), np.nan)
    answers = pipeline.recommend(
        users, min(k, pipeline.max_k), [items[-RECENT_ITEMS:] for items in session], [e[-4_000:] for e in exclude]
    )
    for at, answer in enumerate(answers):
        for place_, item in enumerate(answer.items):
            rows[at, place_] = row_of.get(item.item_id, -1)
            scores[at, place_] = item.score
    return rows, scores


def measure(rows: np.ndarray, scores: np.ndarray, window: Window, rules: OfflineRules) -> Measured:
    """Per-user metrics and the whole-list figures of lists ``(U, k)``."""
    hit, sizes = hits(rows, window.truth), window.truth.sizes
    first = rows[:, : rules.ndcg_k]
    shown = first[first >= 0]
    per_user = {
        f"ndcg@{rules.ndcg_k}": ndcg(hit, sizes, rules.ndcg_k),
        f"recall@{rules.recall_k}": recall(hit, sizes, min(rules.recall_k, rows.shape[1])),
        "mrr": mrr(hit, rules.recall_k),
    }
    tail = float(window.tail[shown].mean()) if len(shown) else 0.0
    return Measured(per_user, coverage(first, window.dataset.n_items), tail, _calibration_error(first, scores, hit))


def _calibration_error(first: np.ndarray, scores: np.ndarray, hit: np.ndarray) -> float:
    wide = first.shape[1]
    there = (first >= 0) & np.isfinite(scores[:, :wide])
    labels = hit[:, :wide][there]
    if labels.all() or not labels.any():
        return float("nan")
    users = np.repeat(np.arange(len(first)), wide).reshape(first.shape)[there]
    probabilities = calibrate_probabilities(scores[:, :wide][there], labels, users)
    known = np.isfinite(probabilities)
    return reliability(probabilities[known], labels[known]).expected_calibration_error if known.any() else float("nan")


def compare_releases(
    challenger: LocalPipeline,
    champion: LocalPipeline | None,
    window: Window,
    rules: OfflineRules,
    *,
    since: float,
    champion_since: float,
    rng: np.random.Generator,
) -> Comparison:
    """Everything that G1 judges; without a champion popularity stands in for it.

    Args:
        challenger: The new release.
        champion: The live one.
        window: The later window.
        rules: Cut-offs.
        since: The challenger knows events up to here.
        champion_since: The champion does.
        rng: Of the random baseline.

    Raises:
        GateError: The champion learned from events of the window.
    """
    if champion is not None and champion_since >= window.start:
        raise GateError("the live release learned from the later window", where=f"up to {champion_since:.0f}")
    k = max(rules.ndcg_k, rules.recall_k)
    ours = measure(*ask(challenger, window, since, k), window, rules)
    users = [str(user) for user in window.dataset.users.ids[window.user_rows]]
    popular = challenger.recommend_rows(users, min(k, window.dataset.n_items), stage=POPULARITY)
    chance = np.argsort(rng.random((len(users), window.dataset.n_items)), axis=1)[:, :k]
    nothing = np.full(chance.shape, np.nan)
    baselines = {
        "popularity": measure(popular, nothing, window, rules),
        "random": measure(chance, nothing, window, rules),
    }
    theirs = baselines["popularity"]
    if champion is not None:
        theirs = measure(*ask(champion, window, champion_since, k), window, rules)
    return Comparison(ours, theirs, baselines, window.slices, is_first=champion is None)

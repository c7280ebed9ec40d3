"""`conch demo-loop`: a simulator with a known truth, several retrains, a bad release refused, a rollback."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from core.artifacts import Artifact
from core.dataset import Dataset, load_dataset
from core.errors import GateError
from core.histories import SECONDS_PER_DAY
from core.progress import Progress
from core.settings import Settings, change_settings
from pipeline.gate.statistics import Paired, compare
from pipeline.loop.demo_page import write_page
from pipeline.loop.inputs import Labels, no_labels
from pipeline.loop.journal import Decision
from pipeline.loop.publishing import PublishedReleases
from pipeline.loop.retrain import BASE_FILE, Run, retrain
from pipeline.loop.simulate import Recommend, Users, held_out_quality, simulated_users, visit
from serving.client import ConchClient
from serving.server import TritonServer
from training.data.stage import build_dataset

K = 10
DAYS = 30
GOLDEN = 0.6180339887498949
QUICK = {
    "gate.rules": Path("config/gate/demo.toml"), "gate.resamples": 500,
    "train.threads": 1, "gat.epochs": 4, "gat.dimension": 16, "mf.dimension": 32, "mf.epochs": 8,
    "ranker.windows": 2, "ranker.max_users": 300, "ranker.predicted_values": False,
    "recall.candidates": 60, "ranker.epochs": 4, "serving.max_k": 50, "similar.items": False,
    "retrain.full_every": 100, "retrain.epochs_factor": 0.75,
}  # fmt: skip
"""Small models: the demonstration is about the loop."""
BROKEN = {"mf.dimension": 1, "mf.epochs": 1, "mf.regularisation": 10.0, "gat.dimension": 2, "gat.epochs": 1,
          "gat.table_rate": 1e-6, "retrain.mode": "full"}  # fmt: skip
"""A training run with wrong settings: what the gate has to stop."""


@dataclass(frozen=True)
class Round:
    """One release and what became of it.

    Attributes:
        title: For people.
        decision: On record.
        quality: NDCG@10 of each user on held-out events ``(U,)``; None for a release that never answered.
        looked: Places that users looked at while it was live.
        clicks: Of these, clicked.
    """

    title: str
    decision: Decision
    quality: np.ndarray | None = None
    looked: int = 0
    clicks: int = 0


@dataclass(frozen=True)
class Story:
    """What the demonstration showed.

    Attributes:
        rounds: In order.
        gain: Final release against the first, over users.
        refused: The bad release's decision.
        rollback: Release that answered before, after, and the milliseconds of the exchange.
        seconds: In all.
    """

    rounds: tuple[Round, ...]
    gain: Paired
    refused: Decision
    rollback: tuple[str, str, float]
    seconds: float

    @property
    def holds(self) -> bool:
        """The final release beats the first by more than two standard errors, and the bad one was refused."""
        return self.gain.difference > 2 * self.gain.standard_error and self.refused.action == "refused"


def run_demo_loop(settings: Settings, progress: Progress, *, rounds: int = 3, visits: int = 3, seed: int = 0) -> Story:
    """Runs the demonstration below ``paths.var``/demo-loop and writes its page there.

    Args:
        settings: Where the data comes from; models are made small.
        progress: Where lines go.
        rounds: Retrains after the first release.
        visits: Of each user per round.
        seed: Of users and their patience.

    Raises:
        GateError: What should hold did not.
    """
    started = time.perf_counter()
    rng = np.random.default_rng(seed)
    own = _settings(settings)
    whole = build_dataset(_in(own, "world"), progress)
    dataset = load_dataset(whole)
    users, known = simulated_users(dataset, 0.2, rng)
    own = _write_base(own, whole, dataset, known, progress)
    publishing = PublishedReleases(own, "demo-loop", starts_as_canary=False)
    told: list[Round] = []
    decision = _step(own, publishing, "first release", no_labels(), progress)
    for turn in range(rounds + 1):
        if turn:
            labels = Labels(users.table(), f"simulated-{turn}")
            decision = _step(own, publishing, f"retrain {turn}", labels, progress)
            if decision.action in ("published", "canary"):
                users.since_release = [[] for _ in users.ids]
        if publishing.champion() is None:
            raise GateError("the first release was refused", found=decision.reason)
        with TritonServer(own, free_ports=True) as server, server.client() as client:
            recommend = _asking(client)
            quality = held_out_quality(users, recommend)
            looked, clicks = 0, 0
            for _ in range(visits if turn < rounds else 0):
                counted = visit(users, rng.permutation(len(users.ids)), recommend, K, rng)
                looked, clicks = looked + counted[0], clicks + counted[1]
            told.append(Round(f"round {turn}: {server.release_id}", decision, quality, looked, clicks))
        mean, rate = float(np.nanmean(quality)), clicks / max(looked, 1)
        progress.say(f"demo-loop: {told[-1].title}, held-out NDCG@10 {mean:.4f}, clicks per place {rate:.3f}")
    broken = change_settings(own, BROKEN)
    refused = _step(broken, publishing, "bad release", Labels(users.table(), "simulated-bad"), progress)
    told.append(Round("wrong settings", refused))
    rollback = _roll_back(own, publishing, users, told)
    progress.say(f"demo-loop: rolled back from {rollback[0]} to {rollback[1]} in {rollback[2]:.0f} ms")
    first, last = told[0].quality, told[rounds].quality
    assert first is not None
    assert last is not None
    there = np.isfinite(first) & np.isfinite(last)
    gain = compare(last[there], first[there], np.random.default_rng(seed), 1_000)
    story = Story(tuple(told), gain, refused, rollback, time.perf_counter() - started)
    page = write_page(story, own.paths.var / "reports")
    progress.say(
        f"demo-loop: final against first {gain.difference:+.4f} ± {gain.standard_error:.4f} NDCG@10 on "
        f"{gain.users} users, {story.seconds:.0f} s; {page}"
    )
    if not story.holds:
        raise GateError(
            "the loop did not show what it should",
            expected="a gain of more than two standard errors, and a refusal of the bad release",
            found=f"{gain.difference:+.4f} ± {gain.standard_error:.4f}, {refused.action}",
            next_step=str(page),
        )
    return story


def _settings(settings: Settings) -> Settings:
    return change_settings(settings, {**QUICK, "paths.var": settings.paths.var / "demo-loop"})


def _in(settings: Settings, name: str) -> Settings:
    return change_settings(settings, {"paths.var": settings.paths.var / name})


def _write_base(
    settings: Settings, whole: Artifact, dataset: Dataset, known: np.ndarray, progress: Progress
) -> Settings:
    """The dataset that the first release may know: each user's earliest events, without what comes later."""
    events = dataset.events.where(known)
    folder = settings.paths.var / "world"
    table = pa.table(
        {
            "user_id": pa.array(dataset.users.ids[events.user_rows], pa.string()),
            "item_id": pa.array(dataset.items.ids[events.item_rows], pa.string()),
            "timestamp": users_own_pace(events.user_rows, float(events.timestamps.max())),
        }
    )
    pq.write_table(table, folder / "base.parquet")
    sides = {f"data.{noun}": whole.file(f"{noun}.parquet") for noun in ("users", "items")}
    own = change_settings(settings, {"data.source": "files", "data.events": folder / "base.parquet", **sides})
    base = build_dataset(own, progress)
    file = settings.paths.var / "loop" / BASE_FILE
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(base.manifest.run_id, encoding="utf-8")
    return own


def users_own_pace(user_rows: np.ndarray, end: float) -> np.ndarray:
    """Times ``(events,)`` at which everybody is active over the same 30 days, each at an even pace in their own order.

    In MovieLens a user rates everything in an hour: a later window would hold a handful of users.
    """
    order = np.argsort(user_rows, kind="stable")
    counts = np.bincount(user_rows)
    starts = np.cumsum(counts) - counts
    times = np.empty(len(user_rows))
    ranks = np.arange(len(user_rows)) - starts[user_rows[order]]
    times[order] = end - DAYS * SECONDS_PER_DAY * (1 - (ranks + 1) / counts[user_rows[order]])
    stagger = np.arange(len(counts)) * GOLDEN % 1 * DAYS / 5 * SECONDS_PER_DAY  # nobody acts in step with all others
    return times - stagger[user_rows]


def _step(
    settings: Settings, publishing: PublishedReleases, title: str, labels: Labels, progress: Progress
) -> Decision:
    decision = retrain(settings, Run("manual", labels, is_asked=True), publishing, progress)
    progress.say(f"demo-loop: {title}: {decision.action} {decision.release or ''} ({decision.reason})")
    return decision


def _asking(client: ConchClient) -> Recommend:
    def recommend(
        users: Sequence[str], k: int, session: Sequence[Sequence[str]], exclude: Sequence[Sequence[str]]
    ) -> list[list[str]]:
        answers = client.recommend(users, k, session_items=session, exclude=exclude)
        return [[item.item_id for item in answer.items] for answer in answers]

    return recommend


def _roll_back(
    settings: Settings, publishing: PublishedReleases, users: Users, told: list[Round]
) -> tuple[str, str, float]:
    """Takes the live release back by one and asks a server which one answers."""
    live = [one.decision.release for one in told if one.decision.action == "published"]
    before, after = str(live[-1]), str(live[-2])
    started = time.perf_counter()
    publishing.rollback(after, "shown by the demonstration")
    taken_ms = (time.perf_counter() - started) * 1_000
    with TritonServer(settings, free_ports=True) as server, server.client() as client:
        answered = client.recommend(users.ids[:1], K)[0].release
    return before, answered, taken_ms

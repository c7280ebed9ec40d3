"""`conch demo-loop`: a simulator with a known truth, several retrains, a worse release refused, a rollback."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from core.artifacts import Artifact, parent_artifact
from core.dataset import load_dataset
from core.errors import GateError
from core.progress import Progress
from core.settings import Settings, change_settings
from pipeline.gate.data_quality import DataFacts
from pipeline.gate.rules import read_rules
from pipeline.gate.run import Evidence, run_gate
from pipeline.gate.statistics import Paired, compare
from pipeline.gate.window import Window, known_until, later_window
from pipeline.loop.challenger import newest_release
from pipeline.loop.demo_page import write_page
from pipeline.loop.demo_world import World, make_world, per_user_ndcg
from pipeline.loop.inputs import Labels, no_labels
from pipeline.loop.journal import Decision, Journal
from pipeline.loop.publishing import PublishedReleases
from pipeline.loop.retrain import Run, retrain
from pipeline.loop.simulate import Habits, Recommend, Traffic, live_through
from pipeline.loop.worse import worse_release
from serving.client import ConchClient
from serving.server import TritonServer

K = 10
WORSE = 0.02
"""Relative loss in NDCG@10 of the release that the gate has to stop."""
QUICK = {
    "gate.rules": Path("config/gate/demo.toml"), "gate.resamples": 1_000,
    "train.threads": 1, "gat.epochs": 4, "gat.dimension": 16, "mf.dimension": 32, "mf.epochs": 8,
    "ranker.windows": 2, "ranker.max_users": 300, "ranker.predicted_values": False,
    "recall.candidates": 60, "ranker.epochs": 4, "serving.max_k": 50, "similar.items": False, "similar.users": False,
    "rating.enabled": False, "compress.enabled": False,
    "retrain.mode": "full",
}  # fmt: skip
"""Small models: the demonstration is about the loop."""


@dataclass(frozen=True)
class Round:
    """One release and what became of it.

    Attributes:
        title: For people.
        decision: On record.
        quality: NDCG@10 of each user on the final window ``(U,)``, knowing what the release itself learned; None where
            no release came out.
        as_live: The same, asked with everything that users did since it was trained.
        traffic: While it was live; None where nobody was served by it.
    """

    title: str
    decision: Decision
    quality: np.ndarray | None = None
    as_live: np.ndarray | None = None
    traffic: Traffic | None = None


@dataclass(frozen=True)
class Rollback:
    """Release that was live, the one that answered afterwards, and the exchange in milliseconds."""

    before: str
    after: str
    milliseconds: float


@dataclass(frozen=True)
class Story:
    """What the demonstration showed.

    Attributes:
        rounds: In order; the refused release last.
        gain: Final live release against the first on the final window, paired over users.
        gain_as_live: The same where both are told what users did since they were trained.
        loss: Real loss of the release that was made worse, on the gate's window, relative.
        refused: Decision about it.
        rollback: See there.
        seconds: In all.
    """

    rounds: tuple[Round, ...]
    gain: Paired
    gain_as_live: Paired
    loss: float
    refused: Decision
    rollback: Rollback
    seconds: float

    @property
    def rose(self) -> bool:
        """The final release beats the first by more than two standard errors."""
        return self.gain.difference > 2 * self.gain.standard_error


def run_demo_loop(settings: Settings, progress: Progress, *, rounds: int = 3, seed: int = 0) -> Story:
    """Runs the demonstration below ``paths.var``/demo-loop and writes its page to its reports.

    Args:
        settings: Where the data comes from; models are made small.
        progress: Where lines go.
        rounds: Retrains after the first release.
        seed: Of the users' patience.

    Raises:
        GateError: The first release, or every later one, was refused.
    """
    started = time.perf_counter()
    rng = np.random.default_rng(seed)
    own = change_settings(settings, {**QUICK, "paths.var": settings.paths.var / "demo-loop"})
    own, world = make_world(own, rounds, progress)
    publishing = PublishedReleases(own, "demo-loop", starts_as_canary=False)
    told: list[Round] = []
    with ExitStack() as stack:
        recommend: Recommend | None = None
        for turn in range(rounds + 1):
            told.append(_release(own, publishing, world, turn, progress))
            if recommend is None:
                server = stack.enter_context(TritonServer(own, free_ports=True))
                client = stack.enter_context(server.client())
                recommend = _asking(client)
            if turn < rounds:
                traffic = live_through(world.users, *world.periods[turn], recommend, K, rng, Habits())
                told[-1] = replace(told[-1], traffic=traffic)
                progress.say(
                    f"demo-loop: {traffic.visits:,} visits, {traffic.clicks:,} clicks on {traffic.looked:,} places "
                    f"looked at, {traffic.elsewhere:,} items found elsewhere"
                )
        if sum(one.decision.action == "published" for one in told) < 2:
            reasons = "; ".join(one.decision.reason for one in told[1:])
            raise GateError("no retrained release went live", found=reasons, next_step=str(own.paths.var / "reports"))
        refused, loss = _worse(own, publishing, progress)
        told.append(replace(_measured(own, world, refused), title=f"made {loss:.1%} worse on purpose"))
        rollback = _roll_back(own, publishing, client, world.users.ids[:1])
    live = [one for one in told if one.decision.action == "published"]
    gains = [_gain(one, seed) for one in ((live[-1].quality, live[0].quality), (live[-1].as_live, live[0].as_live))]
    story = Story(tuple(told), gains[0], gains[1], loss, refused, rollback, time.perf_counter() - started)
    page = write_page(story, own.paths.var / "reports")
    progress.say(f"demo-loop: rolled back from {rollback.before} to {rollback.after} in {rollback.milliseconds:.0f} ms")
    progress.say(
        f"demo-loop: final against first {gains[0].difference:+.4f} ± {gains[0].standard_error:.4f} NDCG@10 on "
        f"{gains[0].users} users, told what is new {gains[1].difference:+.4f} ± {gains[1].standard_error:.4f}; "
        f"{story.seconds:.0f} s; {page}"
    )
    return story


def check_story(story: Story) -> None:
    """Raises GateError where the demonstration did not show what it should."""
    if story.rose and story.refused.action == "refused" and story.rollback.after != story.rollback.before:
        return
    raise GateError(
        "the loop did not show what it should",
        expected="a gain of more than two standard errors, the worse release refused, an older release at the end",
        found=f"{story.gain.difference:+.4f} ± {story.gain.standard_error:.4f}, {story.refused.action}",
        next_step="the page demo-loop.html says more",
    )


def _release(settings: Settings, publishing: PublishedReleases, world: World, turn: int, progress: Progress) -> Round:
    """Trains a release on everything known so far, has it judged, and measures it."""
    title = f"retrain {turn}" if turn else "first release"
    labels = Labels(world.users.table(), f"simulated-{turn}") if turn else no_labels()
    decision = retrain(settings, Run("manual", labels, is_asked=True), publishing, progress)
    progress.say(f"demo-loop: {title}: {decision.action} {decision.release or ''} ({decision.reason})")
    if publishing.champion() is None:
        raise GateError("the first release did not go live", found=decision.reason)
    if decision.action == "published":
        world.users.since_release = [[] for _ in world.users.ids]
    found = replace(_measured(settings, world, decision), title=title)
    if found.quality is not None:
        progress.say(f"demo-loop: {title}: NDCG@10 on the final window {found.quality.mean():.4f}")
    return found


def _measured(settings: Settings, world: World, decision: Decision) -> Round:
    if decision.release is None:
        return Round("", decision)
    release = newest_release(settings, decision.release)
    return Round(
        "",
        decision,
        per_user_ndcg(release, world.window, float("inf"), K),
        per_user_ndcg(release, world.window, _known_until(settings, release), K),
    )


def _known_until(settings: Settings, release: Artifact) -> float:
    data = load_dataset(parent_artifact(release, settings.paths.var, "dataset"))
    return known_until(data, tuple(release.manifest.tensors["fit"]))


def _worse(settings: Settings, publishing: PublishedReleases, progress: Progress) -> tuple[Decision, float]:
    """Makes the live release a little worse and asks the gate about it."""
    champion = publishing.champion()
    if champion is None:
        raise GateError("nothing is live")
    data = load_dataset(parent_artifact(champion, settings.paths.var, "dataset"))
    fit, since = tuple(champion.manifest.tensors["fit"]), _known_until(settings, champion)
    window: Window = later_window(data, fit, settings.gate.max_users, np.random.default_rng(settings.gate.seed))
    k = read_rules(settings.gate.rules).offline.ndcg_k
    bad, loss = worse_release(settings, champion, lambda one: float(per_user_ndcg(one, window, since, k).mean()), WORSE)
    ruling = run_gate(settings, bad, champion, Evidence(DataFacts(events=len(data.events))), progress)
    report = ruling.report
    decision = Decision(
        datetime.now(UTC).isoformat(timespec="seconds"), "manual", "refused", "; ".join(report.refusals),
        release=report.challenger, champion=report.champion, figures={"report": str(ruling.file)},
    )  # fmt: skip
    if report.passed:
        decision = replace(decision, action=publishing.publish(bad, "passed the gate", canary_only=False), reason="")
    Journal(settings.paths.var).add(decision)
    progress.say(f"demo-loop: {report.challenger}, {loss:.1%} worse on purpose: {decision.action} ({decision.reason})")
    return decision, loss


def _asking(client: ConchClient) -> Recommend:
    def recommend(
        users: Sequence[str], k: int, session: Sequence[Sequence[str]], exclude: Sequence[Sequence[str]]
    ) -> list[list[str]]:
        answers = client.recommend(users, k, session_items=session, exclude=exclude)
        return [[item.item_id for item in answer.items] for answer in answers]

    return recommend


def _roll_back(
    settings: Settings, publishing: PublishedReleases, client: ConchClient, users: Sequence[str]
) -> Rollback:
    """Takes the live release back on the running server while everything that training needs is away."""
    before = client.recommend(users, K)[0].release
    with _away(settings.paths.var / "artifacts"):
        started = time.perf_counter()
        publishing.rollback(None, "shown by the demonstration")
        taken_ms = (time.perf_counter() - started) * 1e3
        after = client.recommend(users, K)[0].release
    return Rollback(before, after, taken_ms)


@contextmanager
def _away(folder: Path) -> Iterator[None]:
    aside = folder.with_name(f"{folder.name}.away")
    folder.rename(aside)
    try:
        yield
    finally:
        aside.rename(folder)


def _gain(pair: tuple[np.ndarray | None, np.ndarray | None], seed: int) -> Paired:
    last, first = pair
    if last is None or first is None:
        raise GateError("a live release was not measured")
    return compare(last, first, np.random.default_rng(seed), 1_000)

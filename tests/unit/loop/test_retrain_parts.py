"""Inputs, journal, memory limit and the schedule's answers."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from core.artifacts import Artifact
from core.dataset import Dataset, load_dataset
from core.errors import GateError, TrainingError
from core.feedback_labels import TRAINING_EVENTS
from core.progress import SILENT
from core.settings import Settings, change_settings
from pipeline.loop.challenger import memory_limit
from pipeline.loop.inputs import Labels, no_labels, prepare_data
from pipeline.loop.journal import Action, Decision, Journal
from pipeline.loop.judging import read_labels
from pipeline.loop.lease import Lease
from pipeline.loop.retrain import Run, modes, retrain
from pipeline.loop.schedule import LEASE_NAME, Fenced, tick
from training.data.stage import build_dataset
from training.models.mf import fit_mf

SMALL = {
    "data.source": "synthetic",
    "data.synthetic_users": 40,
    "data.synthetic_items": 30,
    "data.synthetic_events": 250,
}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return change_settings(Settings(), {**SMALL, "paths.var": tmp_path / "var"})


def labels(count: int, order: np.ndarray | None = None) -> Labels:
    rows = np.arange(count) if order is None else order
    columns = [
        [f"new{row % 5}" for row in rows], [f"item{row}" for row in rows], [1.75e9 + row for row in rows],
        [None] * len(rows), ["click"] * len(rows),
    ]  # fmt: skip
    return Labels(
        pa.table([pa.array(c, f.type) for c, f in zip(columns, TRAINING_EVENTS, strict=True)], schema=TRAINING_EVENTS)
    )


def test_shuffled_and_repeated_labels_give_the_same_dataset(settings: Settings) -> None:
    base = build_dataset(settings)
    rng = np.random.default_rng(0)
    orders = (None, rng.permutation(20), np.append(rng.permutation(20), [3, 3, 7]))
    made = [prepare_data(settings, base, labels(20, order)).data.events for order in orders]
    digests = {path.read_bytes() for path in made if path is not None}
    assert len(set(made)) == 1
    assert len(digests) == 1


def test_new_users_and_items_enter_the_dataset(settings: Settings) -> None:
    base = build_dataset(settings)
    old = load_dataset(base)
    new = load_dataset(build_dataset(prepare_data(settings, base, labels(20))))
    assert (new.n_users, new.n_items) == (old.n_users + 5, old.n_items + 20)
    assert len(new.events) == len(old.events) + 20


def test_model_trained_after_a_deletion_is_the_one_that_never_saw_the_user(settings: Settings, tmp_path: Path) -> None:
    base = build_dataset(settings)
    gone = str(load_dataset(base).users.ids[3])
    chosen = change_settings(settings, {"train.threads": 1, "mf.epochs": 3, "mf.dimension": 8, "train.fit": ("train",)})

    def vectors(labels: Labels) -> tuple[Dataset, np.ndarray]:
        dataset = load_dataset(build_dataset(prepare_data(chosen, base, labels)))
        model = fit_mf(dataset, dataset.events.of_splits(("train",)), chosen, seed=0)
        return dataset, model.item_vectors.numpy()

    forgotten = Labels(no_labels().table, forgotten=frozenset({gone}))
    dataset, without = vectors(forgotten)
    assert gone not in dataset.users.ids
    sources = {"events": prepare_data(chosen, base, no_labels()).data.events, "users": base.file("users.parquet")}
    files: dict[str, object] = {"data.source": "files", "data.items": base.file("items.parquet")}
    for name, source in sources.items():
        table, files[f"data.{name}"] = pq.read_table(str(source)), tmp_path / f"{name}-without.parquet"
        pq.write_table(table.filter(pc.not_equal(table["user_id"], gone)), files[f"data.{name}"])
    fresh = load_dataset(build_dataset(change_settings(chosen, {**files, "paths.var": tmp_path / "other"})))
    np.testing.assert_array_equal(
        without, fit_mf(fresh, fresh.events.of_splits(("train",)), chosen, seed=0).item_vectors.numpy()
    )
    assert not np.array_equal(vectors(no_labels())[1], without), "the user did leave traces before"


class Nothing:
    """Publishing without a live release, or with one that must not be replaced."""

    def __init__(self, live: Artifact | None = None) -> None:
        self.live, self.published = live, 0

    def champion(self) -> Artifact | None:
        return self.live

    def publish(self, release: Artifact, reason: str, *, canary_only: bool) -> Action:
        self.published += 1
        return "published"


@pytest.fixture
def live(settings: Settings) -> Artifact:
    """Any artefact that can stand for the live release where nothing is trained."""
    base = build_dataset(settings)
    return Artifact(
        base.path, base.manifest.model_copy(update={"tensors": {**base.manifest.tensors, "release_id": "r000001"}})
    )


def test_too_few_labels_are_a_recorded_no(settings: Settings, live: Artifact) -> None:
    decision = retrain(settings, Run("time", labels(5)), Nothing(live))
    assert decision.action == "skipped"
    assert "not enough data" in decision.reason
    assert Journal(settings.paths.var).read() == [decision]


def test_failed_training_keeps_the_live_release_and_says_why(settings: Settings, live: Artifact) -> None:
    broken = change_settings(
        settings,
        {
            "recall.sources": ["mf"],
            "mf.regularisation": 1e-30,
            "mf.unobserved_ratio": 1e-30,
            "mf.value_slope": 1e300,
            "train.threads": 1,
        },
    )
    publishing = Nothing(live)
    decision = retrain(broken, Run("manual", labels(200), is_asked=True), publishing)
    assert decision.action == "failed"
    assert decision.reason
    assert publishing.published == 0


def test_unreadable_rules_stop_before_anything_is_trained(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "rules.toml").write_text("[data]\nleast_event = 3\n")
    with pytest.raises(GateError):
        retrain(
            change_settings(settings, {"gate.rules": tmp_path / "rules.toml"}), Run("manual", no_labels()), Nothing()
        )
    assert not Journal(settings.paths.var).read()


def test_full_challenger_competes_now_and_then(settings: Settings, live: Artifact) -> None:
    journal = Journal(settings.paths.var)
    assert modes(settings, journal, None) == ("full",)
    assert modes(settings, journal, live) == ("incremental",)
    for _ in range(settings.retrain.full_every):
        journal.add(Decision("2026-01-01T00:00:00+00:00", "time", "published", ""))
    assert modes(settings, journal, live) == ("incremental", "full")


def test_memory_limit_ends_cleanly_and_goes_away() -> None:
    with pytest.raises(TrainingError, match="out of memory"), memory_limit(64):
        np.ones(1 << 28)
    assert np.ones(1 << 20).sum() == 1 << 20


def test_journal_passes_over_a_line_that_a_crash_cut_short(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    first = journal.add(Decision("2026-01-01T00:00:00+00:00", "manual", "refused", "why"))
    with journal.path.open("a") as stream:
        stream.write('{"time": "2026')
    assert journal.read() == [first]


def test_every_look_is_written_down_and_two_at_once_are_one(settings: Settings, live: Artifact) -> None:
    publishing = Nothing(live)
    quiet = change_settings(settings, {"schedule.least_events": 1_000})
    now = lambda: datetime(2026, 11, 23, tzinfo=UTC)  # noqa: E731
    assert not tick(quiet, publishing, lambda fresh: labels(5), SILENT, now=now).run
    other = Lease(settings.paths.var / "loop" / "lease.sqlite", LEASE_NAME, "another", 600)
    epoch = other.take()
    assert epoch is not None
    held = tick(settings, publishing, lambda fresh: labels(200), SILENT, is_asked=True, now=now)
    assert not held.run
    assert "another run" in held.reason
    lines = (settings.paths.var / "loop" / "schedule.jsonl").read_text().splitlines()
    assert [json.loads(line)["run"] for line in lines] == [False, False]
    assert publishing.published == 0


def test_old_live_release_is_reported_as_stale(settings: Settings, live: Artifact) -> None:
    later = lambda: datetime(2030, 1, 1, tzinfo=UTC)  # noqa: E731
    assert tick(settings, Nothing(live), lambda fresh: labels(1), SILENT, now=later).is_stale


def test_run_whose_lease_was_taken_over_cannot_publish(tmp_path: Path, live: Artifact) -> None:
    clock = [0.0]
    first, second = (Lease(tmp_path / "lease.sqlite", "loop", name, 60, lambda: clock[0]) for name in "ab")
    epoch = first.take()
    clock[0] = 100
    assert second.take() == 2
    publishing = Nothing(live)
    with pytest.raises(GateError, match="taken over"):
        Fenced(publishing, first, epoch or 0).publish(live, "late", canary_only=False)
    assert publishing.published == 0


def test_labels_of_another_shape_are_refused(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"no parquet")
    with pytest.raises(GateError, match="labels"):
        read_labels(settings, tmp_path / "x.parquet")

"""What users make of each release, from sealed and waiting events alike."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from core.errors import FeedbackError
from core.feedback import Event
from core.sections import FeedbackSettings, LabelSettings
from feedback.online import OnlineMetrics, ratio
from feedback.store import EventStore
from tests.unit.feedback.worlds import KEYS, START_MS, ManualClock, answer, deletion, impression

SETTINGS = LabelSettings()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[EventStore]:
    made = EventStore(tmp_path / "events", KEYS, FeedbackSettings(), ManualClock())
    yield made
    made.close()


def story() -> list[Event]:
    """Two releases: r1 with a click, two likes of one slate and a dwell; r2 with a skip and a fall-back."""
    one, two, three = impression("a1", "ann"), impression("a2", "ann"), impression("b1", "bob", latency_ms=9.0)
    other = impression("c1", "cid", release="r2")
    fallen = impression(
        "c2", "cid", release="r2", arm="fallback", degraded="popularity", model_error="broken", latency_ms=400.0
    )
    return [
        one, two, three, other, fallen,
        answer("e1", one, "b"),
        answer("e2", three, "a", "like"), answer("e3", three, "c", "like"),
        answer("e4", two, "d", "dwell", dwell_ms=2_000),
        answer("e5", other, "a", "skip"), answer("e6", other, "b", "skip"),
    ]  # fmt: skip


def by_release(found: list[OnlineMetrics]) -> dict[str, OnlineMetrics]:
    return {one.release: one for one in found}


def test_each_release_has_its_rates(store: EventStore) -> None:
    store.append(story())
    found = by_release(store.online(START_MS, SETTINGS))
    first, second = found["r1"], found["r2"]
    assert (first.users, first.slates, first.wanted, first.items) == (2, 3, 2, 4)
    assert first.click_rate.value == pytest.approx(2 / 3)
    assert first.like_rate.value == pytest.approx(1 / 3)
    assert (first.dwell_ms.value, first.skip_rate.value, first.fallbacks) == (2_000, 0, 0)
    assert (first.p50_ms, second.p99_ms) == (3.5, pytest.approx(400, rel=0.02))
    assert (second.slates, second.fallbacks, second.errors, second.items) == (2, 1, 1, 4)
    assert second.skip_rate.value == pytest.approx(2 / 8)
    assert (second.fallback_rate.low, second.fallback_rate.high) == (0, 1), "one user tells nothing"


def test_sealing_changes_nothing(store: EventStore) -> None:
    events = story()
    store.append(events[:7])
    before = store.online(START_MS, SETTINGS)
    store.seal()
    assert store.online(START_MS, SETTINGS) == before
    store.append(events[7:])  # some sealed, some waiting
    assert by_release(store.online(START_MS, SETTINGS))["r2"].skip_rate.value == pytest.approx(2 / 8)


def test_a_damaged_segment_is_named_not_counted(store: EventStore, tmp_path: Path) -> None:
    store.append(story())
    store.seal()
    (segment,) = (tmp_path / "events" / "segments").iterdir()
    segment.write_bytes(segment.read_bytes()[:-1] + b"?")
    with pytest.raises(FeedbackError, match="a segment of the event store is damaged"):
        store.online(START_MS, SETTINGS)


def test_only_slates_since_then_count(store: EventStore) -> None:
    store.append([impression("old", "ann", at_ms=START_MS - 10_000), impression("new", "ann", release="r2")])
    assert list(by_release(store.online(START_MS, SETTINGS))) == ["r2"]
    assert store.online(START_MS + 1, SETTINGS) == []


def test_deleted_users_are_gone_from_the_numbers(store: EventStore) -> None:
    store.append(story())
    store.append([deletion("d1", "ann")])
    assert by_release(store.online(START_MS, SETTINGS))["r1"].users == 1


def test_intervals_over_users_cover_where_requests_of_a_user_are_alike() -> None:
    rng = np.random.default_rng(0)
    covered, designs = 0, []
    for _ in range(400):
        trials = rng.integers(1, 40, 150)
        hits = rng.binomial(trials, rng.beta(1, 4, 150))  # users differ: mean 0.2
        rate = ratio(hits.astype(float), trials.astype(float))
        covered += rate.low <= 0.2 <= rate.high
        designs.append(rate.design)
    assert covered / 400 >= 0.92
    assert np.median(designs) > 3, "requests of a user are alike: they count less"


def test_independent_requests_have_no_design_effect() -> None:
    rng = np.random.default_rng(1)
    trials = np.full(5_000, 4.0)
    assert ratio(rng.binomial(4, 0.2, 5_000).astype(float), trials).design == pytest.approx(1, abs=0.1)

"""Spikes, drift and decay from made feedback."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from core.feedback_labels import SHOWN_PLACES, TRAINING_EVENTS
from core.sections import ScheduleSettings
from feedback.labels import AnswerCounts, FeedbackLabels
from feedback.spikes import spiking_items
from pipeline.gate.data_quality import check_data
from pipeline.gate.rules import read_rules
from pipeline.loop.triggers import Signals, decay_sigmas, has_drifted
from pipeline.loop.watch import WINDOW_LABELS, click_rates, drifts, store_facts
from tests.unit.loop.test_triggers import NOW

DAY_S = 86_400.0
ITEMS = [f"i{number}" for number in range(50)]
BINS = {item: number // 5 for number, item in enumerate(ITEMS)}


def events(users: list[str], items: list[str], times: np.ndarray) -> pa.Table:
    order = np.argsort(times, kind="stable")
    columns = {
        "user_id": pa.array([users[at] for at in order]),
        "item_id": pa.array([items[at] for at in order]),
        "timestamp": pa.array(times[order]),
        "value": pa.nulls(len(times), pa.float32()),
        "event": pa.array(["click"] * len(times)),
    }
    return pa.table(columns).cast(TRAINING_EVENTS)


def calm(rng: np.random.Generator, days: int, per_day: int = 500, users: int = 400) -> tuple[list, list, np.ndarray]:
    """Old users, items by a power law, evenly over days."""
    n = days * per_day
    weights = 1 / np.arange(1, len(ITEMS) + 1)
    drawn = rng.choice(len(ITEMS), n, p=weights / weights.sum())
    people = [f"u{user}" for user in rng.integers(users, size=n)]
    return people, [ITEMS[item] for item in drawn], rng.uniform(0, days * DAY_S, n)


def places(rewards: np.ndarray, scores: np.ndarray, times: np.ndarray, release: str = "r1") -> pa.Table:
    n = len(rewards)
    values = {
        "request_id": [f"q{at}" for at in range(n)], "user_ref": ["u"] * n,
        "shown_ms": (times * 1000).astype(np.int64), "release": [release] * n, "arm": ["stable"] * n,
        "experiment": [None] * n, "degraded": ["none"] * n, "position": [1] * n, "item": ["i1"] * n,
        "score": scores, "source": ["mf"] * n, "propensity": [0.5] * n, "clicked": rewards > 0,
        "liked": [False] * n, "disliked": [False] * n, "skipped": [False] * n, "purchased": [False] * n,
        "dwell_ms": [None] * n, "reward": rewards, "examined": [None] * n, "final": [True] * n,
        "for_estimates": [True] * n,
    }  # fmt: skip
    return pa.table({name: pa.array(value, SHOWN_PLACES.field(name).type) for name, value in values.items()})


def test_hundred_fake_users_who_push_one_item_are_seen_and_stop_the_gate() -> None:
    users, items, times = calm(np.random.default_rng(0), 10)
    fakes = [f"fake{number}" for number in range(100)]
    pushed = events(users + fakes, items + ["i40"] * 100, np.append(times, np.full(100, 9.9 * DAY_S)))
    assert spiking_items(pushed) == ("i40",)
    found = FeedbackLabels(pushed, SHOWN_PLACES.empty_table(), AnswerCounts(5_100, 0, 0, 0, 5_100, 0))
    facts = store_facts(found, quarantined=0)
    refused = [
        f.check for f in check_data(facts, read_rules(Path("config/gate/rules.toml")).data) if f.verdict == "fail"
    ]
    assert "items that spike" in refused


def test_hit_among_old_users_is_no_spike() -> None:
    users, items, times = calm(np.random.default_rng(0), 10)
    fans = [f"u{number}" for number in range(100)]
    assert spiking_items(events(users + fans, items + ["i40"] * 100, np.append(times, np.full(100, 9.9 * DAY_S)))) == ()


@pytest.mark.parametrize("seed", range(5))
def test_calm_days_have_no_spike_and_no_drift(seed: int) -> None:
    users, items, times = calm(np.random.default_rng(seed), 12)
    table = events(users, items, times)
    assert spiking_items(table) == ()
    assert spiking_items(table.slice(0, 0)) == ()
    found = drifts(table, SHOWN_PLACES.empty_table(), 0.0, lambda: BINS)
    assert len(found) == 12 * 500 // WINDOW_LABELS - 1
    assert not any(has_drifted(found[: end + 1], ScheduleSettings()) for end in range(len(found)))


@pytest.mark.parametrize("what", ["items", "scores", "new items"])
def test_lasting_change_is_drift(what: str) -> None:
    rng = np.random.default_rng(1)
    users, items, times = calm(rng, 12)
    late = times > 5 * DAY_S
    scores = rng.standard_normal(6_000)
    if what == "scores":
        scores = np.where(late, scores + 2, scores)
    elif what == "items":
        items = [f"i{49 - int(item[1:])}" if is_late else item for item, is_late in zip(items, late, strict=True)]
    else:
        items = [f"n{item}" if is_late else item for item, is_late in zip(items, late, strict=True)]
    order = np.argsort(times)
    shown = places(np.zeros(6_000), scores[order], times[order])
    found = drifts(events(users, items, times), shown, 0.0, lambda: BINS)
    assert any(has_drifted(found[: end + 1], ScheduleSettings()) for end in range(len(found)))


def test_what_came_before_the_live_release_is_not_compared() -> None:
    users, items, times = calm(np.random.default_rng(1), 6)
    table = events(users, items, times)
    assert drifts(table, SHOWN_PLACES.empty_table(), 5.5 * DAY_S, lambda: BINS) == []


def test_falling_click_rate_of_the_live_release_is_decay() -> None:
    rng = np.random.default_rng(2)
    times = np.sort(rng.uniform(0, DAY_S, 20_000))
    rewards = (rng.random(20_000) < np.where(np.arange(20_000) < 10_000, 0.10, 0.07)).astype(float)
    rates = click_rates(places(rewards, rng.random(20_000), times), "r1")
    assert rates.first_places == rates.newest_places == 5_000
    told = Signals(
        NOW, click_rate=rates.newest, shown=rates.newest_places, first_click_rate=rates.first,
        first_shown=rates.first_places,
    )  # fmt: skip
    assert decay_sigmas(told) > ScheduleSettings().decay_sigmas
    assert click_rates(places(rewards, rewards, times), "another") == click_rates(SHOWN_PLACES.empty_table(), "r1")

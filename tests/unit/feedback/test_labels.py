"""Labels by SQL: which answers count, which places were examined, which may be estimated from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from core.feedback import Event, Place
from core.feedback_labels import SHOWN_PLACES, TRAINING_EVENTS
from core.sections import FeedbackSettings, LabelSettings
from feedback.labels import AnswerCounts, FeedbackLabels, label
from feedback.store import EventStore
from tests.unit.feedback.worlds import HOUR_MS, KEYS, START_MS, ManualClock, answer, impression, ref

SETTINGS = LabelSettings(user_labels_per_day=3)


class World:
    """A store, and what it holds as labels."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.clock = folder, ManualClock()
        self.store = EventStore(folder, KEYS, FeedbackSettings(), self.clock)

    def labelled(self, *events: Event, after_s: float = 7_200) -> FeedbackLabels:
        """After that time more."""
        self.store.append(events)
        self.clock.advance(after_s)
        self.store.append([impression("later", "zoe", at_ms=self.clock.now_ms())])  # moves the watermark
        self.store.seal()
        return label(self.folder, self.store.snapshot(), SETTINGS)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path / "events")
    yield made
    made.store.close()


def column(found: FeedbackLabels, name: str, request: str = "r1") -> list[object]:
    rows = found.places.to_pylist()
    return [row[name] for row in rows if row["request_id"] == request]


def items(found: FeedbackLabels) -> list[tuple[str, str]]:
    return [(row["item_id"], row["event"]) for row in found.events.to_pylist()]


def test_empty_store_has_empty_tables(world: World) -> None:
    found = label(world.folder, world.store.snapshot(), SETTINGS)
    assert found.events.schema == TRAINING_EVENTS
    assert found.places.schema == SHOWN_PLACES
    assert (len(found.events), len(found.places)) == (0, 0)


def test_places_above_the_last_answer_were_examined_and_others_are_unknown(world: World) -> None:
    shown = impression("r1")
    found = world.labelled(shown, answer("e1", shown, "c"))
    assert column(found, "position") == [1, 2, 3, 4]
    assert column(found, "clicked") == [False, False, True, False]
    assert column(found, "examined") == [True, True, True, None]
    assert column(found, "reward") == [0, 0, 1, 0]
    assert found.places.schema == SHOWN_PLACES


def test_each_kind_of_answer_has_its_column(world: World) -> None:
    shown = impression("r1")
    found = world.labelled(
        shown, answer("e1", shown, "a", "like"), answer("e2", shown, "b", "skip"),
        answer("e3", shown, "c", "dislike"), answer("e4", shown, "d", "dwell", dwell_ms=40_000),
        answer("e5", shown, "d", "dwell", dwell_ms=50_000, after_ms=2_000),
    )  # fmt: skip
    assert column(found, "liked") == [True, False, False, False]
    assert column(found, "skipped") == [False, True, False, False]
    assert column(found, "disliked") == [False, False, True, False]
    assert column(found, "dwell_ms") == [None, None, None, 50_000]
    assert column(found, "reward") == [1, 0, 0, 0]
    assert items(found) == [("a", "like"), ("d", "dwell")]
    assert found.counts == AnswerCounts(counted=5, late=0, not_shown=0, taken_back=0, labels=2, over_cap=0)


def test_click_after_its_window_changes_nothing_and_is_counted(world: World) -> None:
    shown = impression("r1")
    found = world.labelled(shown, answer("e1", shown, after_ms=HOUR_MS // 60 * 4), after_s=0)
    assert found.counts.counted == 1
    late = answer("e2", shown, "b", after_ms=31 * 60_000)
    world.clock.advance(3_600)
    found = world.labelled(late)
    assert (found.counts.counted, found.counts.late) == (1, 1)
    assert items(found) == [("a", "click")]
    assert column(found, "clicked") == [True, False, False, False]


def test_purchase_a_day_later_is_a_label_and_no_reward_of_the_slate(world: World) -> None:
    shown = impression("r1")
    world.labelled(shown)
    world.clock.advance(10 * 3_600)
    found = world.labelled(answer("e1", shown, "b", "purchase", after_ms=10 * HOUR_MS))
    assert items(found) == [("b", "purchase")]
    assert column(found, "purchased") == [False, True, False, False]
    assert column(found, "reward") == [0, 0, 0, 0]


def test_correction_takes_its_own_users_answer_back(world: World) -> None:
    shown, other = impression("r1"), impression("r2", "bob")
    found = world.labelled(
        shown, other, answer("e1", shown), answer("e2", other),
        answer("c1", shown, item=None, kind="correction", corrects="e1"),
        answer("c2", shown, item=None, kind="correction", corrects="e2"),
    )  # fmt: skip
    assert [row["user_id"] for row in found.events.to_pylist()] == [ref("bob")]
    assert found.counts.taken_back == 1


def test_answer_to_an_item_that_was_not_shown_is_counted_and_no_label(world: World) -> None:
    shown = impression("r1")
    found = world.labelled(shown, answer("e1", shown, "z"))
    assert found.counts == AnswerCounts(counted=0, late=0, not_shown=1, taken_back=0, labels=0, over_cap=0)


def test_two_answers_to_one_place_are_one_label_the_earliest(world: World) -> None:
    shown = impression("r1")
    found = world.labelled(
        shown, answer("e2", shown, "a", "like", after_ms=9_000), answer("e1", shown, "a", "click", after_ms=2_000)
    )
    assert items(found) == [("a", "click")]
    assert column(found, "liked")[0] is True


def test_labels_of_a_user_and_day_are_capped_earliest_first(world: World) -> None:
    shown = impression("r1")
    found = world.labelled(shown, *(answer(f"e{i}", shown, "abcd"[i], after_ms=9_000 - i) for i in range(4)))
    assert sorted(item for item, _ in items(found)) == ["b", "c", "d"]
    assert (found.counts.labels, found.counts.over_cap) == (3, 1)


def test_open_window_is_not_final_and_no_ground_for_estimates(world: World) -> None:
    shown = impression("r1")
    found = world.labelled(shown, after_s=60)
    assert column(found, "final") == [False] * 4
    assert column(found, "for_estimates") == [False] * 4
    assert column(world.labelled(), "final") == [True] * 4


@pytest.mark.parametrize(
    ("fields", "usable"),
    [
        ({}, [True] * 4),
        ({"arm": "fallback", "degraded": "popularity"}, [False] * 4),
        (
            {
                "slate": (
                    Place(position=1, item="a", score=1.0, propensity=None, source="mf"),
                    Place(position=2, item="b", score=0.5, propensity=0.25, source="gat"),
                )
            },
            [False, True],
        ),
    ],
    ids=["logged", "fall-back", "no propensity"],
)
def test_only_places_with_a_propensity_enter_estimates(
    world: World, fields: dict[str, object], usable: list[bool]
) -> None:
    found = world.labelled(impression("r1", **fields))
    assert column(found, "for_estimates") == usable


def test_rows_are_ordered_by_time_and_place(world: World) -> None:
    found = world.labelled(impression("r2", at_ms=START_MS - 5), impression("r1", "bob", at_ms=START_MS - 9))
    rows = [(row["shown_ms"], row["request_id"], row["position"]) for row in found.places.to_pylist()]
    assert rows == sorted(rows)

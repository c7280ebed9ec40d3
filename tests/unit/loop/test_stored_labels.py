"""The gateway's store, and labels from it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from core.feedback import Feedback
from core.feedback_keys import FeedbackKeys, keys_folder, load_keys
from core.feedback_reasons import Reason
from core.feedback_tokens import issue_token
from core.feedback_users import user_ref
from core.settings import Settings, load_settings
from feedback.store import EventStore, store_folder
from pipeline.loop.stored_labels import stored_labels
from tests.unit.feedback.worlds import impression

ITEMS = ("a", "b", "c", "d")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings((), (f'paths.var="{tmp_path}"', "labels.user_labels_per_day=3"))


class World:
    """A store with the impression ``r1`` of four items for ann, shown now."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.keys: FeedbackKeys = load_keys(keys_folder(settings.paths.var))
        self.store = EventStore(store_folder(settings.paths.var), self.keys, settings.feedback)
        self.now_ms = time.time_ns() // 1_000_000 - 8 * 3_600_000
        self.show("r1", "ann")

    def show(self, request: str, user: str) -> None:
        reference = user_ref(user, self.keys.pseudonym)
        self.store.append([impression(request, user, ITEMS, at_ms=self.now_ms, user_ref=reference)])

    def tell(self, event_id: str, user: str = "ann", request: str = "r1", after_s: float = 1, **fields: object) -> str:
        reference = user_ref(user, self.keys.pseudonym)
        token = issue_token(self.keys.tokens, request, reference, ITEMS, int(self.now_ms / 1000) + 86_400)
        values: dict[str, object] = {
            "event_id": event_id, "type": "click", "user_ref": reference, "item": "b", "request_id": request,
            "token": token, "event_time_ms": self.now_ms + round(after_s * 1000),
        }  # fmt: skip
        (told,) = self.store.append([Feedback.model_validate(values | fields)])
        return told.status if told.reason is None else str(told.reason)

    def labels(self, known: tuple[str, ...] = ("ann",)) -> list[tuple[str, str, str]]:
        table = stored_labels(self.settings, known).table
        return list(zip(*(table[name].to_pylist() for name in ("user_id", "item_id", "event")), strict=True))


@pytest.fixture
def world(settings: Settings) -> World:
    return World(settings)


def test_click_on_a_shown_item_is_a_label_of_the_known_user(world: World) -> None:
    assert world.tell("e1") == "stored"
    assert world.labels() == [("ann", "b", "click")]


def test_user_whom_the_base_data_lacks_stays_a_pseudonym(world: World) -> None:
    world.tell("e1")
    assert world.labels(known=()) == [(user_ref("ann", world.keys.pseudonym), "b", "click")]


def test_same_event_twice_is_stored_once(world: World) -> None:
    assert [world.tell("e1"), world.tell("e1")] == ["stored", "duplicate"]
    assert len(world.labels()) == 1


def test_same_id_with_another_body_is_a_conflict_and_the_first_one_stays(world: World) -> None:
    world.tell("e1")
    assert world.tell("e1", item="c") == Reason.ID_CONFLICT
    assert world.labels() == [("ann", "b", "click")]


def test_two_answers_to_one_item_are_one_label(world: World) -> None:
    world.tell("e1")
    world.tell("e2", type="like")
    assert world.labels() == [("ann", "b", "click")]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [({"token": "1.ff.x.y"}, Reason.FORGED_TOKEN), ({"request_id": None, "token": None}, Reason.ORPHAN)],
)
def test_forged_and_orphan_events_never_become_labels(world: World, fields: dict, reason: Reason) -> None:
    assert world.tell("e1", **fields) == reason
    assert world.labels() == []


def test_another_users_token_is_forged(world: World) -> None:
    stolen = issue_token(
        world.keys.tokens, "r1", user_ref("ann", world.keys.pseudonym), ITEMS, int(world.now_ms / 1000) + 9
    )
    assert world.tell("e1", user="bob", token=stolen) == Reason.FORGED_TOKEN


@pytest.mark.parametrize(
    "fields",
    [
        {"item": "z"},
        {"type": "skip"},
        {"type": "dwell", "dwell_ms": 10},
        {"request": "never-shown"},
        {"after_s": 3 * 3600},
        {"after_s": -3600},
    ],
    ids=["not in the slate", "not wanted", "short dwell", "no impression", "too late", "before it was shown"],
)
def test_what_proves_no_interest_in_a_shown_item_is_no_label(world: World, fields: dict) -> None:
    assert world.tell("e1", **fields) == "stored"
    assert world.labels() == []


def test_long_dwell_and_late_purchase_are_labels(world: World) -> None:
    world.tell("e1", type="dwell", dwell_ms=60_000)
    world.tell("e2", type="purchase", item="c", after_s=6 * 3600)
    assert world.labels() == [("ann", "b", "dwell"), ("ann", "c", "purchase")]


def test_corrected_answer_is_no_label(world: World) -> None:
    world.tell("e1")
    assert world.tell("e2", type="correction", corrects="e1", item=None) == "stored"
    assert world.labels() == []


def test_labels_of_a_user_and_day_are_capped(world: World) -> None:
    for place, item in enumerate(ITEMS):
        world.tell(f"e{place}", item=item)
    assert len(world.labels()) == 3


def test_deleted_user_has_no_labels(world: World) -> None:
    world.tell("e1")
    world.store.append(
        [Feedback(event_id="gone", type="delete_user", user_ref=user_ref("ann", world.keys.pseudonym), event_time_ms=1)]
    )
    assert world.labels() == []


def test_deleted_user_of_the_base_data_is_forgotten_there_too_and_what_follows_counts(world: World) -> None:
    reference = user_ref("ann", world.keys.pseudonym)
    world.store.append([Feedback(event_id="gone", type="delete_user", user_ref=reference, event_time_ms=1)])
    assert stored_labels(world.settings, ["ann", "bob"]).forgotten == {"ann"}
    assert stored_labels(world.settings, ["ann", "bob"]).forgotten == {"ann"}, "after the segments were cleared too"
    world.show("r2", "ann")
    assert world.tell("e9", request="r2") == "stored"
    assert world.labels(("ann", "bob")) == [("ann", "b", "click")]


def test_same_events_give_the_same_manifest_and_others_do_not(world: World) -> None:
    world.tell("e1")
    first = stored_labels(world.settings, ["ann"]).manifest
    assert stored_labels(world.settings, ["ann"]).manifest == first
    world.tell("e2", item="c")
    assert stored_labels(world.settings, ["ann"]).manifest != first


def test_no_store_gives_no_labels(settings: Settings) -> None:
    assert len(stored_labels(settings, [])) == 0


def test_newest_events_come_first_without_what_was_taken_back(world: World) -> None:
    world.tell("e1")
    world.tell("e2", type="like", item="c")
    world.tell("e3", type="correction", corrects="e1", item=None)
    (found,) = world.store.newest([user_ref("ann", world.keys.pseudonym)], 10)
    assert [(event.item, event.type) for event in found] == [("c", "like")]

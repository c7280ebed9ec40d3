"""The event store on disk: what is acknowledged, what is refused, what survives."""

from __future__ import annotations

import os
import resource
import signal
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from core.errors import StoreUnavailableError
from core.feedback import Event, Rejected, parse_feedback, parse_impression
from core.feedback_reasons import Reason
from core.sections import FeedbackSettings
from feedback.recent import QUERY
from feedback.store import EventStore
from tests.suites.event_store_suite import EventStoreSuite
from tests.unit.feedback.worlds import HOUR_MS, KEYS, ManualClock, answer, deletion, impression, ref, token

SETTINGS = FeedbackSettings(user_events_per_day=50)


@dataclass
class Embedded:
    """One store is both ends."""

    sink: EventStore
    recent: EventStore

    def settle(self) -> None:
        """A commit is visible at once."""


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store(tmp_path: Path, clock: ManualClock) -> Iterator[EventStore]:
    opened = EventStore(tmp_path / "events", KEYS, SETTINGS, clock)
    yield opened
    opened.close()


class TestEmbedded(EventStoreSuite):
    @pytest.fixture
    def ends(self, store: EventStore) -> Embedded:
        return Embedded(store, store)


def reason(store: EventStore, event: Event | Rejected) -> Reason | None:
    (told,) = store.append([event])
    return told.reason


def test_acknowledgement_names_the_order_of_arrival(store: EventStore) -> None:
    shown = impression("r1")
    first = store.append([shown, answer("e1", shown)])
    second = store.append([answer("e1", shown), answer("e2", shown, "b")])
    assert [told.seq for told in (*first, *second)] == [1, 2, 2, 3]


def test_same_id_with_another_body_is_a_conflict_and_the_first_one_stays(store: EventStore) -> None:
    shown = impression("r1")
    store.append([shown, answer("e1", shown, "a")])
    assert reason(store, answer("e1", shown, "b")) == Reason.ID_CONFLICT
    assert [event.item for event in store.newest([shown.user_ref], 5)[0]] == ["a"]


def test_same_refusal_is_kept_once_and_counted(store: EventStore) -> None:
    shown = impression("r1")
    forged = answer("e1", shown, token="1.ff.x.y")
    assert [reason(store, forged) for _ in range(3)] == [Reason.FORGED_TOKEN] * 3
    (kept,) = store.quarantined()
    assert (kept.key, kept.times, kept.reason) == ("e1", 3, Reason.FORGED_TOKEN)
    assert store.counts() == {"sealed": 0, "segments": 0, "unsealed": 0, "quarantine forged_token": 3}


@pytest.mark.parametrize(
    ("after_ms", "expected"),
    [
        (600_000, Reason.FUTURE),
        (5_000, None),
        (-5_000, None),
        (-30 * 24 * HOUR_MS, Reason.TOO_OLD),
    ],
    ids=["ten minutes ahead", "clock error ahead", "clock error behind", "thirty days old"],
)
def test_times_far_from_the_servers_clock_are_refused(
    store: EventStore, after_ms: int, expected: Reason | None
) -> None:
    assert reason(store, answer("e1", impression("r1"), after_ms=after_ms)) == expected


def test_expired_token_is_refused(store: EventStore) -> None:
    shown = impression("r1")
    assert reason(store, answer("e1", shown, token=token(shown, hours=-1))) == Reason.EXPIRED_TOKEN


def test_another_users_token_is_forged(store: EventStore) -> None:
    shown = impression("r1", "ann")
    assert reason(store, answer("e1", shown, user_ref=ref("bob"))) == Reason.FORGED_TOKEN


def test_answer_without_a_request_is_an_orphan(store: EventStore) -> None:
    assert reason(store, answer("e1", impression("r1"), request_id=None, token=None)) == Reason.ORPHAN


def test_bot_is_capped_by_day_and_others_are_not(store: EventStore, clock: ManualClock) -> None:
    shown, other = impression("r1", "bot"), impression("r2", "ann")
    statuses = [told.status for told in store.append([answer(f"e{i}", shown) for i in range(100)])]
    assert statuses == ["stored"] * 50 + ["quarantined"] * 50
    assert reason(store, answer("x", shown)) == Reason.BOT_CAP
    assert reason(store, answer("y", other)) is None
    clock.advance(86_400)
    tomorrow = impression("r3", "bot", at_ms=clock.now_ms())
    assert reason(store, answer("z", tomorrow)) is None


@pytest.mark.parametrize(
    "payload",
    [
        b"\xff\xfe", b"", b"[]", b"nonsense", b'{"schema_version":2}', b'{"event_id":"a\\u0000b"}',
        b'{"item":"\\ud800"}', b"x" * 5_000_000, b"[" * 50_000,
    ],
    ids=["UTF-8", "empty", "array", "text", "newer schema", "NUL", "surrogate", "5 MB", "deep"],
)  # fmt: skip
def test_what_does_not_parse_lands_in_quarantine(store: EventStore, payload: bytes) -> None:
    parsed = parse_feedback(payload)
    assert isinstance(parsed, Rejected)
    assert reason(store, parsed) == Reason.SCHEMA
    (kept,) = store.quarantined()
    assert len(kept.body) <= 4_096


@pytest.mark.parametrize("propensity", ["0", "1.5", "NaN", "-1"])
def test_impossible_propensity_is_no_impression(propensity: str) -> None:
    body = impression("r1").model_dump_json().replace('"propensity":0.5', f'"propensity":{propensity}', 1)
    assert isinstance(parse_impression(body.encode()), Rejected)


def test_order_goes_on_when_the_servers_clock_jumps_back(store: EventStore, clock: ManualClock) -> None:
    shown = impression("r1")
    store.append([shown, answer("e1", shown, "a")])
    clock.wall_ms -= HOUR_MS
    (told,) = store.append([answer("e2", shown, "b")])
    assert (told.status, told.seq) == ("stored", 3)  # not "future", though it lies an hour ahead of the clock now
    assert [event.item for event in store.newest([shown.user_ref], 5)[0]] == ["b", "a"]


def test_deletion_takes_the_quarantine_along(store: EventStore) -> None:
    shown = impression("r1")
    store.append([shown, answer("e1", shown, token="1.ff.x.y"), deletion("d1", "ann")])
    assert store.quarantined() == []


def test_two_processes_worth_of_writers_lose_nothing(tmp_path: Path, clock: ManualClock) -> None:
    stores = [EventStore(tmp_path / "events", KEYS, FeedbackSettings(busy_seconds=30), clock) for _ in range(3)]
    shown = impression("r1")
    stores[0].append([shown])

    def write(number: int) -> None:
        for batch in range(20):
            stores[number].append([answer(f"{number}-{batch}-{i}", shown) for i in range(10)])
            stores[number].append([answer(f"shared-{batch}", shown)])

    threads = [threading.Thread(target=write, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert stores[0].counts()["unsealed"] == 1 + 3 * 200 + 20
    for opened in stores:
        opened.close()


def test_locked_database_is_unavailable_for_now_and_nothing_is_acknowledged(tmp_path: Path) -> None:
    store = EventStore(tmp_path / "events", KEYS, FeedbackSettings(busy_seconds=0.05), ManualClock())
    other = sqlite3.connect(tmp_path / "events" / "inbox.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    shown = impression("r1")
    with pytest.raises(StoreUnavailableError, match="locked") as error:
        store.append([shown])
    assert error.value.retry_after_s >= 1
    other.execute("ROLLBACK")
    assert [told.status for told in store.append([shown])] == ["stored"]
    store.close()


def test_full_disk_loses_nothing_that_was_acknowledged_and_recovers_by_itself(tmp_path: Path) -> None:
    """In a child: a limit on the size of files is the disk that is full."""
    child = os.fork()
    if child == 0:
        os._exit(_fill_disk(tmp_path / "events"))
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def _fill_disk(folder: Path) -> int:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    store = EventStore(folder, KEYS, FeedbackSettings(user_events_per_day=10**6), ManualClock())
    shown = impression("r1")
    store.append([shown])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
    acknowledged, refused = 0, 0
    for batch in range(50):
        try:
            store.append([answer(f"{batch}-{i}", shown) for i in range(50)])
            acknowledged += 50
        except StoreUnavailableError:
            refused += 1
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    kept = store.counts()["unsealed"]
    again = store.append([answer("after", shown)])[0].status
    return 0 if refused > 0 and acknowledged > 0 and kept == acknowledged + 1 and again == "stored" else 1


def test_histories_are_read_within_a_millisecond(store: EventStore) -> None:
    """By the number of pages that SQLite touches, not by a clock: one index, no table scan."""
    plan = store._recent._database.execute(
        f"EXPLAIN QUERY PLAN {QUERY.format(types='?')}", ("u", "click", 5)
    ).fetchall()
    assert [row[3] for row in plan] == ["SEARCH recent USING PRIMARY KEY (user_ref=?)"]


def test_settings_whose_ids_end_before_late_copies_are_refused() -> None:
    with pytest.raises(ValueError, match="late copy"):
        FeedbackSettings(retention_days=10, oldest_days=14)

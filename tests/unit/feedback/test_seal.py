"""From the inbox to segments and datasets: order, damage, deletion, retention, crashes."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import FeedbackError
from core.feedback import Event
from core.feedback_reasons import Reason
from core.sections import FeedbackSettings, LabelSettings
from feedback import seal
from feedback.labels import label
from feedback.seal import Sealed
from feedback.snapshot import load_snapshot
from feedback.store import EventStore
from tests.unit.feedback.worlds import KEYS, ManualClock, answer, deletion, impression, ref

SETTINGS = FeedbackSettings()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "events"


@pytest.fixture
def store(folder: Path, clock: ManualClock) -> Iterator[EventStore]:
    opened = EventStore(folder, KEYS, SETTINGS, clock)
    yield opened
    opened.close()


def day(users: int = 4, clicks: int = 3) -> list[Event]:
    """Impressions of some users, and their clicks."""
    events: list[Event] = []
    for user in range(users):
        shown = impression(f"r{user}", f"u{user}")
        events += [shown, *(answer(f"e{user}-{i}", shown, "abcd"[i]) for i in range(clicks))]
    return events


def segments(folder: Path) -> list[Path]:
    return sorted((folder / "segments").glob("*.parquet"))


def labels(folder: Path, store: EventStore) -> list[tuple[str, str]]:
    table = label(folder, store.snapshot(), LabelSettings()).events
    return list(zip(table["user_id"].to_pylist(), table["item_id"].to_pylist(), strict=True))


def test_sealed_events_are_in_one_checked_segment(store: EventStore, folder: Path) -> None:
    store.append(day())
    assert store.seal() == Sealed(events=16)
    assert store.seal() == Sealed()
    assert store.counts() == {"sealed": 16, "segments": 1, "unsealed": 0}
    assert store.verify() == []
    assert len(segments(folder)) == 1


@settings(max_examples=25)
@given(st.data())
def test_dataset_does_not_depend_on_order_batches_repeats_or_seals(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    events = day()
    contents, found = set(), set()
    for _ in range(2):
        folder = tmp_path_factory.mktemp("events")
        store = EventStore(folder, KEYS, SETTINGS, ManualClock())
        order = data.draw(st.permutations(events + data.draw(st.lists(st.sampled_from(events), max_size=5))))
        cuts = sorted(data.draw(st.sets(st.integers(1, len(order) - 1), max_size=3)))
        for begin, end in zip([0, *cuts], [*cuts, len(order)], strict=True):
            store.append(order[begin:end])
            if data.draw(st.booleans()):
                store.seal()
        store.seal()
        snapshot = store.snapshot()
        contents.add((snapshot.content, snapshot.events))
        found.add(tuple(labels(folder, store)))
        store.close()
    assert len(contents) == 1
    assert len(found) == 1
    assert len(next(iter(found))) == 12


def test_another_event_is_another_dataset(store: EventStore) -> None:
    events = day()
    store.append(events[:-1])
    store.seal()
    first = store.snapshot().content
    store.append(events)
    store.seal()
    assert store.snapshot().content != first


def test_click_waits_for_its_impression_and_is_joined_when_it_comes(
    store: EventStore, folder: Path, clock: ManualClock
) -> None:
    shown = impression("r1")
    store.append([answer("e1", shown)])
    assert store.seal() == Sealed(waiting=1)
    clock.advance(60)
    store.append([shown])
    assert store.seal() == Sealed(events=2)
    assert labels(folder, store) == [(ref("ann"), "a")]


def test_click_whose_impression_never_comes_is_an_orphan(store: EventStore, folder: Path, clock: ManualClock) -> None:
    shown = impression("r1")
    store.append([answer("e1", shown)])
    clock.advance(SETTINGS.orphan_minutes * 60 + 1)
    assert store.seal() == Sealed(orphans=1)
    assert [kept.reason for kept in store.quarantined()] == [Reason.ORPHAN]
    assert store.newest([ref("ann")], 5) == [[]]
    assert labels(folder, store) == []


def test_dataset_is_a_file_that_reads_back(store: EventStore, folder: Path) -> None:
    store.append(day())
    store.seal()
    snapshot = store.snapshot()
    file = snapshot.save(folder)
    assert snapshot.save(folder) == file
    assert load_snapshot(file) == snapshot
    file.write_text("{}")
    with pytest.raises(FeedbackError, match="no dataset"):
        load_snapshot(file)


def test_flipped_bit_is_refused_and_repaired_from_the_inbox(store: EventStore, folder: Path) -> None:
    store.append(day())
    store.seal()
    (path,) = segments(folder)
    before = path.read_bytes()
    damaged = bytearray(before)
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(FeedbackError, match="damaged"):
        labels(folder, store)
    assert len(store.verify()) == 1
    assert store.verify(repair=True) == []
    assert path.read_bytes() == before


def test_segment_that_the_inbox_no_longer_holds_cannot_be_repaired(
    store: EventStore, folder: Path, clock: ManualClock
) -> None:
    store.append(day())
    store.seal()
    clock.advance(SETTINGS.keep_sealed_hours * 3600 + 1)
    store.seal()
    segments(folder)[0].write_bytes(b"")
    assert len(store.verify(repair=True)) == 1


def test_damaged_row_of_the_inbox_goes_into_quarantine(store: EventStore, folder: Path) -> None:
    store.append(day(users=1))
    with sqlite3.connect(folder / "inbox.sqlite") as database:
        database.execute("UPDATE events SET body = replace(body, 'e0-1', 'e0-9') WHERE key = 'e0-1'")
    database.close()
    assert store.seal() == Sealed(events=3, corrupt=1)
    assert [kept.reason for kept in store.quarantined()] == [Reason.CORRUPT]


def test_deleted_user_leaves_sealed_segments_too(store: EventStore, folder: Path) -> None:
    store.append(day())
    store.seal()
    (old,) = segments(folder)
    store.append([deletion("d1", "u1")])
    assert store.seal() == Sealed(forgotten=4)
    assert not old.exists()
    snapshot = store.snapshot()
    assert (snapshot.events, snapshot.deleted_users) == (12, 1)
    assert ref("u1") not in {user for user, _ in labels(folder, store)}
    assert all(ref("u1").encode() not in path.read_bytes() for path in segments(folder))
    assert store.verify() == []


def test_user_deleted_while_a_segment_is_written_is_not_in_it(
    store: EventStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.append(day())
    real = seal.write_segment

    def late(*args: object) -> str:
        monkeypatch.setattr(seal, "write_segment", real)
        sha256 = real(*args)
        store.append([deletion("d1", "u1")])
        return sha256

    monkeypatch.setattr(seal, "write_segment", late)
    store.seal()
    store.seal()
    assert store.counts()["sealed"] == 12
    assert ref("u1") not in {user for user, _ in labels(folder, store)}


def test_orphan_of_a_user_deleted_meanwhile_does_not_come_back_through_the_quarantine(
    store: EventStore, folder: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.append([*day(users=1), answer("lost", impression("never"))])
    clock.advance(SETTINGS.orphan_minutes * 60 + 1)
    real = seal.write_segment

    def late(*args: object) -> str:
        sha256 = real(*args)
        store.append([deletion("d1", "ann")])
        return sha256

    monkeypatch.setattr(seal, "write_segment", late)
    assert store.seal().events == 4
    assert store.quarantined() == []


def test_looks_seal_only_when_enough_or_something_old_waits(folder: Path, clock: ManualClock) -> None:
    store = EventStore(folder, KEYS, FeedbackSettings(segment_events=20, segment_minutes=30), clock)
    store.append(day())
    store.seal_if_due()
    assert store.counts()["segments"] == 0
    clock.advance(30 * 60)
    store.seal_if_due()
    assert store.counts() == {"sealed": 16, "segments": 1, "unsealed": 0}
    shown = impression("more", at_ms=clock.now_ms())
    store.append([shown, *(answer(f"more-{i}", shown) for i in range(20))])
    store.seal_if_due()
    assert store.counts()["segments"] == 2
    store.close()


def test_retention_drops_segments_histories_and_ids(store: EventStore, folder: Path, clock: ManualClock) -> None:
    store.append(day())
    store.seal()
    clock.advance(SETTINGS.retention_days * 86_400 + 1)
    assert store.seal() == Sealed(expired=1)
    assert segments(folder) == []
    assert store.newest([ref("u1")], 5) == [[]]
    with sqlite3.connect(folder / "inbox.sqlite") as database:
        left = [database.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0] for table in ("events", "ids", "daily")]
    database.close()
    assert left == [0, 0, 0]


def test_second_sealer_is_refused_while_the_first_one_works(
    store: EventStore, folder: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = EventStore(folder, KEYS, SETTINGS, clock)
    store.append(day())
    real = seal.write_segment

    def meanwhile(*args: object) -> str:
        with pytest.raises(FeedbackError, match="another process"):
            other.seal()
        return real(*args)

    monkeypatch.setattr(seal, "write_segment", meanwhile)
    assert store.seal() == Sealed(events=16)
    assert other.seal() == Sealed()
    other.close()


@pytest.mark.parametrize("step", ["after the file", "before the rename"])
def test_killed_sealer_leaves_nothing_lost_and_nothing_twice(store: EventStore, folder: Path, step: str) -> None:
    store.append(day())
    child = os.fork()
    if child == 0:
        if step == "after the file":
            real = seal.write_segment
            seal.write_segment = lambda *args: (real(*args), os._exit(9))[0]
        else:
            Path.replace = lambda *_: os._exit(9)  # type: ignore[assignment,misc]
        EventStore(folder, KEYS, SETTINGS, ManualClock()).seal()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 9
    assert store.seal() == Sealed(events=16)
    assert len(list((folder / "segments").iterdir())) == 1
    assert len(labels(folder, store)) == 12

"""Events over real NATS into the inbox, histories in real Redis: the same promises, and what happens when one dies."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from core.errors import SettingsError, StoreUnavailableError
from core.feedback import Event, Rejected
from core.feedback_reasons import Reason
from core.feedback_users import user_ref
from core.sections import FeedbackSettings
from core.settings import Settings, load_settings
from feedback.store import EventStore
from feedback.wire import Arrival, pack, unpack
from pipeline.events import feedback_keys, forget_user, ingest
from tests.engines.conftest import Engine
from tests.suites.event_store_suite import EventStoreSuite
from tests.unit.feedback.worlds import KEYS, ManualClock, answer, deletion, impression, ref

SETTINGS = FeedbackSettings(spool_events=20)


@dataclass
class World:
    """Gateway's end, broker, ingester, inbox and Redis."""

    nats: Engine
    redis: Engine
    folder: Path
    clock: ManualClock

    def __post_init__(self) -> None:
        from feedback.jetstream import Ingester, JetStreamSink
        from feedback.redis_histories import RedisHistories
        from feedback.spool import Spool

        url = f"nats://127.0.0.1:{self.nats.port}"
        _until_ready(url)
        self.store = EventStore(self.folder / "events", KEYS, SETTINGS, self.clock)
        onward = JetStreamSink(url, KEYS.tokens, SETTINGS, self.clock, seconds=4.0)
        self.sink = Spool(self.folder / "spool.sqlite", onward, KEYS.tokens, SETTINGS, self.clock)
        self.recent = RedisHistories(f"redis://127.0.0.1:{self.redis.port}/0", SETTINGS.retention_days)
        self.ingester = Ingester(url, self.store, self.recent, seconds=4.0, redeliver_s=1.0)

    def settle(self) -> None:
        """As `conch events ingest` does: a busy broker may have nothing yet, or answer late."""
        empty = late = 0
        while empty < 2:
            try:
                empty = 0 if self.ingester.step(0.4) else empty + 1
            except StoreUnavailableError:
                late += 1
                if late == 3:
                    raise

    def statuses(self, *events: Event | Rejected) -> list[str]:
        return [told.status for told in self.sink.append(events)]

    def items(self, user: str = "ann") -> list[str]:
        return [event.item for event in self.recent.newest([ref(user)], 10)[0]]

    def close(self) -> None:
        self.ingester.close()
        self.sink.close()
        self.recent.close()
        self.store.close()


def _until_ready(url: str) -> None:
    """A server that listens may not have its JetStream yet."""
    from feedback.jetstream import Connection

    connection = Connection(url, seconds=1.0)
    deadline = time.monotonic() + 20
    try:
        while True:
            try:
                connection.call(connection.stream())
                return
            except StoreUnavailableError:
                if time.monotonic() > deadline:
                    raise
    finally:
        connection.close()


def stream_settings(world: World, var: Path) -> Settings:
    engines = f"127.0.0.1:{world.nats.port}", f"127.0.0.1:{world.redis.port}/0"
    options = (f'paths.var="{var}"', f'feedback.nats="nats://{engines[0]}"', f'feedback.redis="redis://{engines[1]}"')
    return load_settings((), options)


@pytest.fixture
def world(nats_server: Engine, redis_server: Engine, tmp_path: Path) -> Iterator[World]:
    made = World(nats_server, redis_server, tmp_path, ManualClock())
    yield made
    made.close()


class TestStream(EventStoreSuite):
    @pytest.fixture
    def ends(self, world: World) -> World:
        return world


def test_copy_is_told_by_the_broker(world: World) -> None:
    shown = impression("r1")
    assert world.statuses(shown) == ["stored"]
    assert world.statuses(shown) == ["duplicate"]


def test_gateway_hears_at_once_what_is_refused_and_the_inbox_keeps_it(world: World) -> None:
    shown = impression("r1")
    told = world.sink.append([answer("e1", shown, token="1.ff.x.y"), Rejected(b"\xff{", Reason.SCHEMA, "no JSON")])
    assert [entry.reason for entry in told] == [Reason.FORGED_TOKEN, Reason.SCHEMA]
    world.settle()
    assert {(kept.reason, kept.body[:2]) for kept in world.store.quarantined()} == {
        (Reason.FORGED_TOKEN, b'{"'), (Reason.SCHEMA, b"\xff{")
    }  # fmt: skip


def test_same_id_with_another_body_is_a_conflict(world: World) -> None:
    shown = impression("r1")
    world.statuses(shown, answer("e1", shown, "a"), answer("e1", shown, "b"))
    world.settle()
    assert [kept.reason for kept in world.store.quarantined()] == [Reason.ID_CONFLICT]
    assert world.items() == ["a"]


def test_event_that_waited_longer_than_its_token_is_judged_by_its_arrival(world: World) -> None:
    shown = impression("r1")
    world.statuses(shown, answer("e1", shown))
    world.clock.advance(3 * 86_400)  # the ingester was away
    world.settle()
    assert world.items() == ["a"]
    assert world.store.quarantined() == []


def test_dead_broker_fills_the_spool_then_sheds_and_nothing_is_lost(world: World) -> None:
    shown = impression("r1")
    world.statuses(shown)
    world.nats.kill()
    statuses: list[str] = []
    refused: list[StoreUnavailableError] = []
    for number in range(25):
        try:
            statuses += world.statuses(answer(f"e{number}", shown, "abcd"[number % 4]))
        except StoreUnavailableError as error:
            refused.append(error)
    assert statuses == ["stored"] * 20
    assert [error.retry_after_s for error in refused] == [5] * 5
    world.nats.start()
    deadline = time.monotonic() + 20
    while world.sink.waiting and time.monotonic() < deadline:
        time.sleep(0.05)
    assert world.sink.waiting == 0
    world.settle()
    assert world.store.counts()["unsealed"] == 21
    assert world.statuses(answer("e99", shown)) == ["stored"]


def test_stopped_broker_delays_a_gateway_no_longer_than_its_time_limit(world: World) -> None:
    shown = impression("r1")
    world.statuses(shown)
    world.nats.signal(signal.SIGSTOP)
    begun = time.monotonic()
    assert world.statuses(answer("e1", shown)) == ["stored"]  # into the spool
    assert time.monotonic() - begun < 10
    begun = time.monotonic()
    assert world.statuses(answer("e2", shown)) == ["stored"]  # at once: others wait already
    assert time.monotonic() - begun < 5
    world.nats.signal(signal.SIGCONT)
    deadline = time.monotonic() + 20
    while world.sink.waiting and time.monotonic() < deadline:
        time.sleep(0.05)
    world.settle()
    assert world.store.counts()["unsealed"] == 3


def test_crash_between_commit_and_acknowledgement_stores_nothing_twice(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = impression("r1")
    world.statuses(shown, answer("e1", shown))

    def dies(*_: object) -> None:
        raise StoreUnavailableError("killed here")

    with monkeypatch.context() as patch:
        patch.setattr(world.recent, "add", dies)
        with pytest.raises(StoreUnavailableError):
            world.ingester.step(1.0)
    assert world.store.counts()["unsealed"] == 2
    assert world.items() == []
    deadline = time.monotonic() + 20
    again = 0
    while again < 2 and time.monotonic() < deadline:  # unacknowledged messages come again
        again += world.ingester.step(1.0)
    assert world.store.counts()["unsealed"] == 2
    assert world.items() == ["a"]


def test_histories_lost_by_redis_are_restored_from_the_inbox(world: World) -> None:
    shown, other = impression("r1"), impression("r2", "bob")
    world.statuses(shown, other, answer("e1", shown, "a"), answer("e2", shown, "b"), answer("e3", other, "c"))
    world.settle()
    world.redis.kill()
    with pytest.raises(StoreUnavailableError):
        world.items()
    world.redis.start()
    assert world.items() == []
    assert world.recent.add(world.store.histories()) == 3
    assert (world.items(), world.items("bob")) == (["b", "a"], ["c"])


def test_late_copy_of_a_deleted_users_event_stays_out_of_redis(world: World) -> None:
    shown = impression("r1")
    click = answer("e1", shown)
    world.statuses(shown, click)
    world.settle()
    world.redis.kill()  # and with it whatever it knew of deletions
    world.redis.start()
    world.store.append([deletion("d1", "ann")])
    arrival = Arrival(click, world.clock.now_ms())
    world.ingester._project([arrival], world.store.append_arrivals([arrival]))
    assert world.items() == []


def test_user_forgotten_by_command_is_gone_from_redis(world: World, tmp_path: Path) -> None:
    settings = stream_settings(world, tmp_path / "var")
    reference = user_ref("ann", feedback_keys(settings).pseudonym)
    world.recent.add([(reference, 1, "e1", "click", "a", None, 1)])
    store = EventStore(tmp_path / "var" / "feedback", feedback_keys(settings), settings.feedback)
    forget_user(settings, store, "ann")
    store.close()
    assert world.recent.newest([reference], 5) == [[]]


def test_events_survive_the_wire() -> None:
    shown = impression("r1", session='é“ \\ "quoted" }')
    for event in (shown, answer("e1", shown, 'a"}b'), Rejected(b"\x00\xff", Reason.SCHEMA, "d", "id", ref("ann"))):
        assert unpack(pack(Arrival(event, 123))) == Arrival(event, 123)
    damaged = unpack(pack(Arrival(shown, 123))[:-9]).event
    assert isinstance(damaged, Rejected)
    assert damaged.reason == Reason.CORRUPT


def test_ingest_command_stores_what_waits(world: World, tmp_path: Path) -> None:
    shown = impression("r1")
    world.statuses(shown, answer("e1", shown))
    settings = stream_settings(world, tmp_path / "var")
    assert ingest(settings, lambda _: None, until_empty=True) == 2


def test_broker_without_redis_is_refused_by_name() -> None:
    with pytest.raises(SettingsError, match="both or neither"):
        load_settings((), ('feedback.nats="nats://127.0.0.1:1"',))

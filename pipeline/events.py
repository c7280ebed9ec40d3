"""`conch events`: the event store of this machine, opened with its keys."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from core.errors import FeedbackError, SettingsError, StoreUnavailableError
from core.feedback import Feedback
from core.feedback_keys import FeedbackKeys, keys_folder, load_keys
from core.feedback_ports import EventSink, RecentEvents, SystemClock
from core.feedback_users import user_ref
from core.settings import Settings
from feedback.labels import label
from feedback.snapshot import load_snapshot
from feedback.spool import Spool
from feedback.store import EventStore, store_folder


def feedback_keys(settings: Settings) -> FeedbackKeys:
    """Both secrets of the loop; made where there are none."""
    return load_keys(settings.feedback.keys or keys_folder(settings.paths.var))


@contextmanager
def open_store(settings: Settings) -> Iterator[EventStore]:
    """The store under ``paths.var``. Raises FeedbackError where there is none."""
    folder = store_folder(settings.paths.var)
    if not folder.is_dir():
        raise FeedbackError(
            "there is no event store", where=str(folder), expected="events that the gateway wrote", found="nothing",
            next_step="start `conch gateway`, or name another folder with --set paths.var=…",
        )  # fmt: skip
    store = EventStore(folder, feedback_keys(settings), settings.feedback)
    try:
        yield store
    finally:
        store.close()


@dataclass(frozen=True)
class Ends:
    """Where a gateway's events go, and where it reads histories."""

    sink: EventSink
    recent: RecentEvents


def open_ends(settings: Settings, stack: ExitStack) -> Ends:
    """Both ends, as the settings ``feedback.nats`` and ``feedback.redis`` say; closed with ``stack``.

    Raises:
        SettingsError: The extra ``stream`` is not installed.
        StoreUnavailableError: The inbox of this machine cannot be used.
    """
    feedback, folder, keys = settings.feedback, store_folder(settings.paths.var), feedback_keys(settings)
    if not feedback.nats:
        store = EventStore(folder, keys, feedback)
        stack.callback(store.close)
        return Ends(store, store)
    jetstream, engines = _engines()
    clock = SystemClock()
    onward = jetstream.JetStreamSink(feedback.nats, keys.tokens, feedback, clock)
    spool = Spool(folder / "spool.sqlite", onward, keys.tokens, feedback, clock)
    stack.callback(spool.close)
    recent = engines.RedisHistories(feedback.redis, feedback.retention_days)
    stack.callback(recent.close)
    return Ends(spool, recent)


def ingest(settings: Settings, say: Callable[[str], None], until_empty: bool = False) -> int:
    """From the broker into the event store and Redis, until interrupted; gives back how many messages.

    Args:
        settings: ``feedback.nats`` and ``feedback.redis``.
        say: Told when an engine goes away.
        until_empty: End when nothing waits.

    Raises:
        SettingsError: No broker is named, or the extra ``stream`` is not installed.
        StoreUnavailableError: With ``until_empty``, where an engine is away.
    """
    if not settings.feedback.nats:
        raise SettingsError(
            "no broker to read from", where="feedback.nats", expected="nats://host:port", found="nothing",
            next_step="without a broker the gateway writes into the event store itself",
        )  # fmt: skip
    jetstream, engines = _engines()
    done = 0
    with ExitStack() as stack:
        store = EventStore(store_folder(settings.paths.var), feedback_keys(settings), settings.feedback)
        stack.callback(store.close)
        histories = engines.RedisHistories(settings.feedback.redis, settings.feedback.retention_days)
        stack.callback(histories.close)
        histories.add(store.histories())  # Redis may have lost them while nobody looked
        ingester = jetstream.Ingester(settings.feedback.nats, store, histories)
        stack.callback(ingester.close)
        while True:
            try:
                got = ingester.step()
            except StoreUnavailableError as error:
                if until_empty:
                    raise
                say(f"ingest: {error.what}; trying again")
                time.sleep(error.retry_after_s)
                continue
            done += got
            if until_empty and not got:
                return done


def _engines() -> tuple[Any, Any]:
    try:
        from feedback import jetstream, redis_histories
    except ImportError as error:
        raise SettingsError(
            "events over NATS and Redis need their clients", where="feedback.nats", expected="the extra `stream`",
            found=str(error), next_step="pip install -e '.[stream]'",
        ) from None  # fmt: skip
    return jetstream, redis_histories


def labels_again(settings: Settings, dataset: Path, out: Path) -> dict[str, int]:
    """Writes the labels of a dataset; gives back what became of its feedback, in events.

    Raises:
        FeedbackError: No dataset, or one whose segments are gone: deletions and retention end them.
    """
    found = label(store_folder(settings.paths.var), load_snapshot(dataset), settings.labels)
    pq.write_table(found.events, out)
    return asdict(found.counts)


def forget_user(settings: Settings, store: EventStore, user_id: str) -> int:
    """Deletes a user, from sealed segments and Redis too; gives back how many sealed events went.

    Raises:
        StoreUnavailableError: Redis is away: the inbox has forgotten already; run it again for the rest.
    """
    reference = user_ref(user_id, feedback_keys(settings).pseudonym)
    now_ms = time.time_ns() // 1_000_000
    store.append(
        [Feedback(event_id=f"delete-{uuid.uuid4().hex}", type="delete_user", user_ref=reference, event_time_ms=now_ms)]
    )
    gone = store.seal().forgotten
    if settings.feedback.redis:
        _, engines = _engines()
        with closing(engines.RedisHistories(settings.feedback.redis, settings.feedback.retention_days)) as histories:
            histories.forget([reference])
    return gone

"""`conch events`: the event store of this machine, opened with its keys."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from core.errors import FeedbackError
from core.feedback import Feedback
from core.feedback_keys import FeedbackKeys, keys_folder, load_keys
from core.feedback_users import user_ref
from core.settings import Settings
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


def forget_user(settings: Settings, store: EventStore, user_id: str) -> int:
    """Deletes a user, from sealed segments too; gives back how many sealed events went."""
    reference = user_ref(user_id, feedback_keys(settings).pseudonym)
    now_ms = time.time_ns() // 1_000_000
    store.append(
        [Feedback(event_id=f"delete-{uuid.uuid4().hex}", type="delete_user", user_ref=reference, event_time_ms=now_ms)]
    )
    return store.seal().forgotten

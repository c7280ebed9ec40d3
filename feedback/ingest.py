"""One batch of events on its way into the inbox, inside one transaction."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Sequence

from core.feedback import Feedback, Impression, body_digest
from core.feedback_ports import Acknowledgement
from core.feedback_reasons import Reason
from feedback.forget import forget_user
from feedback.judge import Verdict
from feedback.quarantine import put_in_quarantine

DAY_MS = 86_400_000


class Ingest:
    """Decides and collects rows; :meth:`write` puts them down.

    Args:
        database: In a transaction.
        verdicts: The batch, in order of arrival.
        now_ms: When it arrived.
        last_seq: Of the event before.
        user_events_per_day: Feedback of one user and day beyond this goes into quarantine.
    """

    def __init__(
        self,
        database: sqlite3.Connection,
        verdicts: Sequence[Verdict],
        now_ms: int,
        last_seq: int,
        user_events_per_day: int,
    ) -> None:
        self._database, self._now_ms, self.last_seq, self._most = database, now_ms, last_seq, user_events_per_day
        self._known = _known_ids(database, [verdict.key for verdict in verdicts if verdict.key is not None])
        users = json.dumps(sorted({v.event.user_ref for v in verdicts if isinstance(v.event, Feedback)}))
        self._counted = _daily_counts(database, users)
        self._taken_back = _corrections(database, users)
        self._new_ids: dict[str, tuple[bytes, int]] = {}
        self._events: list[tuple[object, ...]] = []
        self._recent: list[tuple[str, int, str, str, str, float | None, int]] = []

    def take(self, verdict: Verdict) -> Acknowledgement:
        """One event, in order."""
        event, key = verdict.event, verdict.key
        if event is None or key is None:
            return self._refuse(verdict, verdict.reason or Reason.SCHEMA, verdict.detail)
        digest = body_digest(verdict.body)
        earlier = self._new_ids.get(key) or self._known.get(key)
        if earlier is not None:
            if earlier[0] == digest:
                return Acknowledgement(key, "duplicate", seq=earlier[1])
            return self._refuse(verdict, Reason.ID_CONFLICT, "the id is taken by another event")
        if verdict.reason is not None:
            return self._refuse(verdict, verdict.reason, verdict.detail)
        if isinstance(event, Feedback) and event.type != "delete_user" and not self._within_cap(event):
            return self._refuse(verdict, Reason.BOT_CAP, f"at most {self._most:,} a day")
        self.last_seq += 1
        self._new_ids[key] = (digest, self.last_seq)
        if isinstance(event, Feedback) and event.type == "delete_user":
            self.write()  # what came before goes as well; what comes after is a new beginning
            forget_user(self._database, event.user_ref, self.last_seq)
        else:
            is_impression = isinstance(event, Impression)
            self._events.append(
                (self.last_seq, self._now_ms, key, event.user_ref, is_impression, event.request_id, verdict.body)
            )
            if isinstance(event, Feedback):
                self._into_history(event)
        return Acknowledgement(key, "stored", seq=self.last_seq)

    def write(self) -> None:
        """Puts down what was collected so far."""
        many = self._database.executemany
        many("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, NULL)", self._events)
        # Sorted by key: neighbours in the tree are touched together.
        ids = sorted((key, digest, seq) for key, (digest, seq) in self._new_ids.items())
        many("INSERT OR IGNORE INTO ids VALUES (?, ?, ?)", ids)
        many("INSERT INTO recent VALUES (?, ?, ?, ?, ?, ?, ?)", self._recent)
        counts = sorted((user, day, events) for (user, day), events in self._counted.items())
        many("INSERT OR REPLACE INTO daily VALUES (?, ?, ?)", counts)
        self._events.clear()
        self._recent.clear()

    def _within_cap(self, event: Feedback) -> bool:
        day = (event.user_ref, event.event_time_ms // DAY_MS)
        if self._counted[day] >= self._most:
            return False
        self._counted[day] += 1
        return True

    def _into_history(self, event: Feedback) -> None:
        if event.corrects is not None:
            self.write()
            self._taken_back.add((event.user_ref, event.corrects))
            row = (event.user_ref, event.corrects)
            self._database.execute("INSERT OR IGNORE INTO corrections VALUES (?, ?)", row)
            self._database.execute("DELETE FROM recent WHERE user_ref = ? AND key = ?", row)
        elif event.item is not None and (event.user_ref, event.key) not in self._taken_back:
            self._recent.append(
                (event.user_ref, self.last_seq, event.key, event.type, event.item, event.value, event.event_time_ms)
            )

    def _refuse(self, verdict: Verdict, reason: Reason, detail: str) -> Acknowledgement:
        put_in_quarantine(
            self._database, verdict.key, verdict.user_ref, reason, detail, verdict.body, self._now_ms
        )  # fmt: skip
        return Acknowledgement(verdict.key, "quarantined", reason)


def _known_ids(database: sqlite3.Connection, keys: Sequence[str]) -> dict[str, tuple[bytes, int]]:
    found = database.execute(
        "SELECT ids.key, digest, seq FROM json_each(?) AS asked JOIN ids ON ids.key = asked.value",
        (json.dumps(keys),),
    )
    return {key: (digest, seq) for key, digest, seq in found}


def _daily_counts(database: sqlite3.Connection, users: str) -> Counter[tuple[str, int]]:
    found = database.execute(
        "SELECT user_ref, day, events FROM json_each(?) AS asked JOIN daily ON daily.user_ref = asked.value", (users,)
    )
    return Counter({(user, day): events for user, day, events in found})


def _corrections(database: sqlite3.Connection, users: str) -> set[tuple[str, str]]:
    found = database.execute(
        "SELECT user_ref, corrections.key FROM json_each(?) AS asked JOIN corrections ON user_ref = asked.value",
        (users,),
    )
    return set(found)

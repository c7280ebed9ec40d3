"""What every pair of sink and histories keeps, whatever engine lies behind it."""

from __future__ import annotations

from typing import Protocol

import pytest

from core.feedback import Event, Rejected
from core.feedback_ports import EventSink, RecentEvents
from core.feedback_reasons import Reason
from tests.unit.feedback.worlds import answer, deletion, impression, ref


class Ends(Protocol):
    """The two ends of an engine."""

    sink: EventSink
    recent: RecentEvents

    def settle(self) -> None:
        """Returns when everything acknowledged can be read."""


class EventStoreSuite:
    """Inherit and give the fixture ``ends``."""

    @pytest.fixture
    def ends(self) -> Ends:
        raise NotImplementedError

    def _send(self, ends: Ends, *events: Event | Rejected) -> list[str]:
        told = ends.sink.append(events)
        ends.settle()
        return [entry.status for entry in told]

    def _items(self, ends: Ends, user: str = "ann", limit: int = 10) -> list[str]:
        return [event.item for event in ends.recent.newest([ref(user)], limit)[0]]

    def test_newest_answer_comes_first(self, ends: Ends) -> None:
        shown = impression("r1")
        assert self._send(ends, shown, answer("e1", shown, "a"), answer("e2", shown, "b")) == ["stored"] * 3
        assert self._items(ends) == ["b", "a"]
        assert self._items(ends, limit=1) == ["b"]

    def test_unknown_user_has_no_history(self, ends: Ends) -> None:
        assert self._items(ends, "nobody") == []

    def test_equal_event_counts_once_within_and_across_batches(self, ends: Ends) -> None:
        shown = impression("r1")
        click = answer("e1", shown)
        assert self._send(ends, shown, click, click)[:2] == ["stored", "stored"]
        assert "stored" not in self._send(ends, click, shown)
        assert self._items(ends) == ["a"]

    def test_skips_are_read_only_when_asked_for(self, ends: Ends) -> None:
        shown = impression("r1")
        self._send(ends, shown, answer("e1", shown, "a", "skip"), answer("e2", shown, "b", "like"))
        assert self._items(ends) == ["b"]
        (events,) = ends.recent.newest([ref("ann")], 10, ("skip", "dislike"))
        assert [(event.item, event.type) for event in events] == [("a", "skip")]

    def test_users_are_read_side_by_side(self, ends: Ends) -> None:
        one, two = impression("r1", "ann"), impression("r2", "bob")
        self._send(ends, one, two, answer("e1", one, "a"), answer("e2", two, "b"))
        found = ends.recent.newest([ref("bob"), ref("nobody"), ref("ann")], 5)
        assert [[event.item for event in events] for events in found] == [["b"], [], ["a"]]

    @pytest.mark.parametrize("correction_first", [False, True])
    def test_taken_back_event_leaves_the_history_in_any_order(self, ends: Ends, correction_first: bool) -> None:
        shown = impression("r1")
        pair = [answer("e1", shown), answer("e2", shown, item=None, kind="correction", corrects="e1")]
        self._send(ends, shown, *(reversed(pair) if correction_first else pair))
        assert self._items(ends) == []

    def test_deleted_user_is_gone_and_may_begin_anew(self, ends: Ends) -> None:
        shown, later = impression("r1"), impression("r2")
        click = answer("e1", shown)
        self._send(ends, shown, click, deletion("d1", "ann"))
        assert self._items(ends) == []
        self._send(ends, click)  # a late copy must not bring it back
        assert self._items(ends) == []
        self._send(ends, later, answer("e2", later, "c"))
        assert self._items(ends) == ["c"]

    def test_forged_answer_enters_no_history(self, ends: Ends) -> None:
        shown = impression("r1")
        self._send(ends, shown, answer("e1", shown, token="1.ff.x.y"), Rejected(b"{", Reason.SCHEMA, "no JSON"))
        assert self._items(ends) == []

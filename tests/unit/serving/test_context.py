from __future__ import annotations

import numpy as np

from core.histories import EMPTY_HISTORY, SECONDS_PER_DAY, UserHistory
from core.vocabulary import Vocabulary
from serving.context import Context, build_context
from serving.history import UserStates

ITEMS = Vocabulary([f"i{row}" for row in range(30)])
DAY = SECONDS_PER_DAY


def history(*rows: int) -> UserHistory:
    """Newest first, one day apart, value 1 each."""
    times = 100 * DAY - DAY * np.arange(len(rows))
    return UserHistory(np.array(rows, np.int32), times, np.ones(len(rows), np.float32), np.ones(len(rows), np.uint8))


def context(past: UserHistory, session: tuple[str, ...] = (), exclude: tuple[str, ...] = ()) -> Context:
    return build_context(UserStates((past,), np.zeros((1, 1), np.int64)), [session], [exclude], ITEMS)


def kept(rows: np.ndarray) -> list[int]:
    return [int(row) for row in rows[0] if row < len(ITEMS)]


def test_session_stands_newest_first_before_the_history() -> None:
    padded = context(history(3, 4), ("i7", "i8")).padded
    assert kept(padded.rows) == [8, 7, 3, 4]
    assert padded.ages[0, :4].tolist() == [0, 0, 0, 1]
    assert padded.values[0, :4].tolist() == [0, 0, 1, 1]


def test_session_item_counts_at_its_newest_place_when_it_repeats() -> None:
    assert kept(context(history(3), ("i7", "i8", "i7")).padded.rows) == [7, 8, 3]


def test_session_item_replaces_the_older_event_on_the_same_item() -> None:
    padded = context(history(3, 4, 5), ("i4",)).padded
    assert kept(padded.rows) == [4, 3, 5]
    assert padded.values[0, :3].tolist() == [0, 1, 1]


def test_unknown_and_empty_session_items_are_ignored() -> None:
    assert kept(context(history(3), ("", "what", "")).padded.rows) == [3]


def test_session_of_an_unknown_user_is_the_whole_history() -> None:
    padded = context(EMPTY_HISTORY, ("i1", "i2")).padded
    assert kept(padded.rows) == [2, 1]
    assert not padded.ages.any()


def test_seen_session_and_excluded_items_are_all_excluded() -> None:
    padded = context(history(3, 4), ("i7",), ("i9", "", "what", "i3")).padded
    assert set(kept(padded.exclude)) == {3, 4, 7, 9}


def test_user_without_anything_is_padding_only() -> None:
    padded = context(EMPTY_HISTORY).padded
    assert (padded.rows == len(ITEMS)).all()
    assert (padded.exclude == len(ITEMS)).all()
    assert not padded.ages.any()
    assert not padded.values.any()


def test_users_of_a_batch_do_not_touch_each_other() -> None:
    pasts = (history(1, 2, 3), EMPTY_HISTORY, history(*range(20)))
    states = UserStates(pasts, np.array([[1], [0], [2]]))
    sessions, excluded = [("i9",), (), ("i25", "i26")], [(), ("i5",), ()]
    together = build_context(states, sessions, excluded, ITEMS)
    for at, past in enumerate(pasts):
        alone = context(past, sessions[at], excluded[at])
        assert kept(together.padded.rows[[at]]) == kept(alone.padded.rows)
        assert kept(together.padded.exclude[[at]]) == kept(alone.padded.exclude)
    assert together.features.tolist() == [[1], [0], [2]]


def test_stored_history_is_not_changed_by_a_session() -> None:
    past = history(3, 4)
    context(past, ("i4",))
    assert past.item_rows.tolist() == [3, 4]

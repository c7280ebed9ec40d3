"""The simulator: clicks come from later real events alone, whoever made the slate."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from pipeline.loop.simulate import Habits, Users, live_through, own_pace

SURE = Habits(patience=1 - 1e-9, click=1.0, slip=0.0, elsewhere=0.0, events_per_visit=2)


def users_with(coming: list[tuple[float, str]]) -> Users:
    return Users(["u"], [coming], [["old"]], [[]], [[]])


def showing(*items: str) -> tuple[list[dict[str, object]], object]:
    asked: list[dict[str, object]] = []

    def recommend(
        users: Sequence[str], k: int, session: Sequence[Sequence[str]], exclude: Sequence[Sequence[str]]
    ) -> list[list[str]]:
        asked.append(
            {"users": list(users), "session": [list(s) for s in session], "exclude": [set(e) for e in exclude]}
        )
        return [[item for item in items if item not in set(hidden)][:k] for hidden in exclude]

    return asked, recommend


def test_only_items_that_the_user_really_takes_at_that_time_or_later_are_clicked() -> None:
    users = users_with([(1.0, "a"), (2.0, "b"), (3.0, "c"), (9.0, "d")])
    users.taken[0].append("a")
    _, recommend = showing("x", "a", "c", "d", "y", "b")
    traffic = live_through(users, 2.5, 5.0, recommend, 10, np.random.default_rng(0), SURE)  # type: ignore[arg-type]
    assert [item for _, item, _ in users.labels] == ["c", "d"]  # b is over, d comes later, a is known
    assert traffic.clicks == 2
    assert {time for _, _, time in users.labels} == {3.0}


def test_same_slate_gives_the_same_clicks_whatever_was_live_before() -> None:
    clicked = []
    for history in ([], ["x", "y"]):
        users = users_with([(1.0, "a"), (2.0, "b"), (3.0, "c")])
        users.since_release[0].extend(history)
        _, recommend = showing("b", "z", "c")
        live_through(users, 0.0, 5.0, recommend, 10, np.random.default_rng(3), Habits())  # type: ignore[arg-type]
        clicked.append(users.labels)
    assert clicked[0] == clicked[1]


def test_what_was_clicked_joins_the_session_and_leaves_the_next_slate() -> None:
    users = users_with([(1.0, "a"), (2.0, "b"), (3.0, "c"), (4.0, "d")])
    asked, recommend = showing("a", "c")
    live_through(users, 0.0, 5.0, recommend, 10, np.random.default_rng(0), SURE)  # type: ignore[arg-type]
    assert asked[0]["session"] == [[]]
    assert asked[0]["exclude"] == [{"old"}]
    assert asked[1]["session"] == [["a", "c"]]
    assert asked[1]["exclude"] == [{"old", "a", "c"}]


def test_lower_places_are_clicked_less_often() -> None:
    names = [f"i{at}" for at in range(10)]
    _, recommend = showing(*names)
    firsts, lasts = 0, 0
    for seed in range(300):
        users = users_with([(1.0, name) for name in names])
        habits = Habits(elsewhere=0.0, events_per_visit=10)
        live_through(users, 0.0, 5.0, recommend, 10, np.random.default_rng(seed), habits)  # type: ignore[arg-type]
        firsts += any(item == "i0" for _, item, _ in users.labels)
        lasts += any(item == "i9" for _, item, _ in users.labels)
    assert firsts / 300 == pytest.approx(0.9, abs=0.06)
    assert lasts / 300 == pytest.approx(0.9 * 0.9**9, abs=0.09)


def test_own_pace_keeps_each_users_order_and_the_arrivals() -> None:
    rng = np.random.default_rng(1)
    rows, real = rng.integers(0, 20, 500), rng.random(500) * 1e6
    times = own_pace(rows, real)
    for user in range(20):
        mine = rows == user
        assert (np.argsort(times[mine], kind="stable") == np.argsort(real[mine], kind="stable")).all()
        assert times[mine].min() == real[mine].min()
    assert times.max() <= real.max()

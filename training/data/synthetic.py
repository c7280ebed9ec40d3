"""Made-up events of any size that a recommender can learn from.

Items belong to tastes and are popular by a power law; they appear, peak and fade. Users like a few tastes, shift from
an early mixture to a late one, come back in visits, and rate what fits them higher. Attributes tell part of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from core.errors import SettingsError
from core.sections import DataSettings
from training.data.raw import IdColumn, RawAttributes, RawEvents

START_SECONDS = 1_672_531_200  # 2023-01-01
SPAN_SECONDS = 2 * 365 * 86_400
VISIT_SECONDS = 3_600
EPOCHS = 24
"""Steps in which item popularity moves."""
POWER = 1.1
"""Exponent of item popularity by rank, before appearing and fading."""
TASTE_POWER = 0.7
"""Exponent of taste popularity by rank."""
LIKED_TASTES = 3
EVENTS_PER_USER = 40
FEWEST_ITEMS = 20
MOST_DENSE = 0.25
"""Users know a small part of a catalogue; a denser matrix would leave the popular items no power law."""
ROUNDS = 60
CHUNK_EVENTS = 2_000_000
"""Events drawn at a time, to bound memory."""

ADJECTIVES = ("Quiet", "Amber", "Hollow", "Silver", "Late", "Wild", "Narrow", "Northern", "Paper", "Distant")
NOUNS = ("Harbour", "Orchard", "Signal", "River", "Winter", "Garden", "Letter", "Engine", "Island", "Mirror")
REGIONS = ("north", "south", "east", "west", "overseas")


@dataclass(frozen=True)
class _Items:
    tastes: np.ndarray  # (I,)
    second: np.ndarray  # (I,), -1 is none
    quality: np.ndarray  # (I,)
    born: np.ndarray  # (I,) share of the whole span, negative is before it
    order: np.ndarray  # (I,) rows sorted by taste
    cumulated: np.ndarray  # (EPOCHS * I,) per epoch and taste a distribution over ``order``, shifted by its number


@dataclass(frozen=True)
class _Users:
    activity: np.ndarray  # (U,) cumulated
    tastes: np.ndarray  # (U, LIKED_TASTES)
    early: np.ndarray  # (U, LIKED_TASTES) cumulated mixture
    late: np.ndarray
    bias: np.ndarray  # (U,)
    starts: np.ndarray  # (U + 1,) offsets of visits
    visits: np.ndarray  # (visits,) share of the whole span


def make_synthetic(settings: DataSettings) -> tuple[RawEvents, RawAttributes, RawAttributes]:
    """Events, items and users; the same settings give the same data.

    Raises:
        SettingsError: More events than a sparse matrix of that size can hold.
    """
    n_events = settings.synthetic_events
    n_users, n_items = sizes_of(settings)
    most = int(MOST_DENSE * n_users * n_items)
    if n_events > most:
        raise SettingsError(
            "too many synthetic events for so few users and items",
            where="data.synthetic_events",
            expected=f"at most {most:,}, a quarter of all pairs",
            found=f"{n_events:,}",
        )
    rng = np.random.default_rng(settings.seed)
    n_tastes = int(np.clip(round(np.sqrt(n_items)), 2, 64))
    items = _make_items(n_items, n_tastes, rng)
    users = _make_users(n_users, n_tastes, rng)
    user_rows, item_rows, times = _draw(users, items, n_events, rng)
    events = RawEvents(
        IdColumn(user_rows.astype(np.int32), _ids("u", n_users)),
        IdColumn(item_rows.astype(np.int32), _ids("i", n_items)),
        np.floor(START_SECONDS + times * SPAN_SECONDS),
        _rate(users, items, user_rows, item_rows, rng),
    )
    return events, _describe_items(items, n_tastes), _describe_users(users, n_tastes, rng)


def sizes_of(settings: DataSettings) -> tuple[int, int]:
    """Numbers of users and items; those not set grow with the events, so that any number of events finds room."""
    n_events = settings.synthetic_events
    n_items = settings.synthetic_items or max(FEWEST_ITEMS, round(math.sqrt(5 * n_events)))
    room = math.ceil(n_events / (MOST_DENSE * n_items))
    return settings.synthetic_users or max(2, n_events // EVENTS_PER_USER, room), n_items


def _make_items(n_items: int, n_tastes: int, rng: np.random.Generator) -> _Items:
    tastes = rng.permutation(np.arange(n_items) % n_tastes)
    second = np.where(rng.random(n_items) < 0.4, rng.integers(0, n_tastes, n_items), -1)
    popularity = (1.0 + rng.permutation(n_items)) ** -POWER
    born = rng.uniform(-1.0, 0.95, n_items)
    order = np.argsort(tastes, kind="stable")
    age = (np.arange(EPOCHS)[:, None] + 0.5) / EPOCHS - born  # (EPOCHS, I)
    weight = popularity * np.where(age >= 0, 0.5 + np.exp(-np.maximum(age, 0) / 0.3), 1e-3)
    weight = weight[:, order]
    sums = np.add.reduceat(weight, np.searchsorted(tastes[order], np.arange(n_tastes)), axis=1)  # (EPOCHS, tastes)
    share = weight / sums[:, tastes[order]]
    cumulated = np.cumsum(share.ravel())  # each (epoch, taste) adds 1
    return _Items(tastes, second, rng.normal(size=n_items), born, order, cumulated)


def _make_users(n_users: int, n_tastes: int, rng: np.random.Generator) -> _Users:
    activity = np.cumsum(rng.lognormal(0.0, 1.0, n_users))
    weight = (1.0 + np.arange(n_tastes)) ** -TASTE_POWER
    tastes = rng.choice(n_tastes, (n_users, LIKED_TASTES), p=weight / weight.sum())
    early, late = (np.cumsum(rng.dirichlet(np.full(LIKED_TASTES, 0.7), n_users), axis=1) for _ in range(2))
    counts = 1 + rng.geometric(0.12, n_users)
    starts = np.concatenate([[0], np.cumsum(counts)])
    first = rng.uniform(0, 0.98, n_users)
    stay = np.minimum(rng.exponential(0.25, n_users), 1 - first)
    visits = np.repeat(first, counts) + np.repeat(stay, counts) * rng.random(starts[-1])
    return _Users(activity / activity[-1], tastes, early, late, rng.normal(size=n_users), starts, visits)


def _draw(
    users: _Users, items: _Items, n_events: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distinct pairs with their times, in time order. Each round draws more widely, so that heavy users fill up."""
    width = len(items.tastes)
    pairs, times = np.zeros(0, np.int64), np.zeros(0)
    for turn in range(ROUNDS):
        count = int(1.2 * (n_events - len(pairs))) + 100
        user_rows = np.searchsorted(users.activity, rng.random(count)).clip(max=len(users.bias) - 1)
        if turn > ROUNDS // 2:
            user_rows = rng.integers(0, len(users.bias), count)
        wander = 0.05 + 0.9 * turn / ROUNDS
        for start in range(0, count, CHUNK_EVENTS):
            chunk = user_rows[start : start + CHUNK_EVENTS]
            when, item_rows = _draw_items(users, items, chunk, wander, rng)
            pairs = np.concatenate([pairs, chunk * np.int64(width) + item_rows])
            times = np.concatenate([times, when])
        _, first = np.unique(pairs, return_index=True)
        pairs, times = pairs[first], times[first]
        if len(pairs) >= n_events:
            break
    kept = rng.permutation(len(pairs))[:n_events]
    kept = kept[np.argsort(times[kept], kind="stable")]
    if len(kept) < n_events:
        raise SettingsError(
            "could not draw as many synthetic events",
            where="data.synthetic_events",
            expected="fewer events, or more users and items",
            found=f"{n_events:,}, of which {len(kept):,} were drawn",
        )
    return pairs[kept] // width, pairs[kept] % width, times[kept]


def _draw_items(
    users: _Users, items: _Items, user_rows: np.ndarray, wander: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A visit and an item for each drawn user; with probability ``wander`` from any taste."""
    count = len(user_rows)
    visit = rng.integers(users.starts[user_rows], users.starts[user_rows + 1])
    when = users.visits[visit] + rng.random(count) * VISIT_SECONDS / SPAN_SECONDS
    later = rng.random(count) < users.visits[visit]
    mixture = np.where(later[:, None], users.late[user_rows], users.early[user_rows])
    slot = (rng.random(count)[:, None] > mixture).sum(1).clip(max=LIKED_TASTES - 1)
    n_tastes = int(items.tastes.max()) + 1
    taste = users.tastes[user_rows, slot]
    taste = np.where(rng.random(count) < wander, rng.integers(0, n_tastes, count), taste)
    epoch = (when * EPOCHS).astype(np.int64).clip(max=EPOCHS - 1)
    at = np.searchsorted(items.cumulated, epoch * n_tastes + taste + rng.random(count))
    return when, items.order[at.clip(max=len(items.cumulated) - 1) % len(items.order)]


def _rate(
    users: _Users, items: _Items, user_rows: np.ndarray, item_rows: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    likes = (users.tastes[user_rows] == items.tastes[item_rows][:, None]).any(1)
    score = 3.1 + 0.6 * likes + 0.5 * items.quality[item_rows] + 0.3 * users.bias[user_rows]
    return np.clip(np.rint(score + rng.normal(0, 0.7, len(user_rows))), 1, 5).astype(np.float32)


def _describe_items(items: _Items, n_tastes: int) -> RawAttributes:
    n_items = len(items.tastes)
    rows = np.arange(n_items)
    names = np.array([f"taste-{taste:02d}" for taste in range(n_tastes)], dtype=object)
    both = (items.second >= 0) & (items.second != items.tastes)
    genres = np.where(both, names[items.tastes] + "|" + names[items.second], names[items.tastes])
    adjectives, nouns = np.array(ADJECTIVES, dtype=object), np.array(NOUNS, dtype=object)
    numbers = np.array([f" {row // 100 + 1}" for row in rows], dtype=object)
    titles = adjectives[rows % len(ADJECTIVES)] + " " + nouns[rows // len(ADJECTIVES) % len(NOUNS)] + numbers
    columns = pa.table(
        {
            "title": pa.array(titles, pa.string()),
            "genres": pa.array(genres, pa.string()),
            "year": pa.array((2_023 + np.floor(items.born * 30)).astype(np.int32)),
        }
    )
    return RawAttributes(_ids("i", n_items), columns)


def _describe_users(users: _Users, n_tastes: int, rng: np.random.Generator) -> RawAttributes:
    n_users = len(users.bias)
    age = 18 + (users.tastes[:, 0] * 45) // n_tastes + rng.integers(0, 12, n_users)
    region = np.array(REGIONS, dtype=object)[rng.integers(0, len(REGIONS), n_users)]
    return RawAttributes(
        _ids("u", n_users), pa.table({"age": pa.array(age.astype(np.int32)), "region": pa.array(region, pa.string())})
    )


def _ids(letter: str, count: int) -> pa.Array:
    numbers = pc.utf8_lpad(pa.array(np.arange(1, count + 1)).cast(pa.string()), len(str(count)), "0")
    return pc.binary_join_element_wise(letter, numbers, "").cast(pa.string())

"""MovieLens-100K expanded to any size by a randomised Kronecker product with a reduced copy of itself.

Belletti et al. 2019, "Scalable realistic recommendation datasets through fractal expansions": the rating matrix ``R``
is reduced to a small ``R~`` that keeps its leading singular values, and every cell ``(k, l)`` of ``R~`` becomes a copy
of ``R`` of which each event stays with a probability that grows with the cell. User ``r`` of copy ``k`` meets item
``c`` of copy ``l`` only if ``r`` met ``c``: tastes of the base remain, and ``R~`` lays tastes of copies over them.

The probabilities of each ``k`` add up to 1. So a user's copies have as long a history as the user, whatever the size,
and the number of events is that of the base times the number of copies of its users.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from core.artifacts import TEMPORARY
from core.progress import Progress
from training.data.raw import RawEvents

ITEM_POWER = 0.6
"""Copies of items per copies of users, as a power: a thousand times the events have 63 times the items."""
SHIFT_SECONDS = 15 * 86_400
"""Copies of a user live up to so much earlier or later."""
JITTER_SECONDS = 3_600
"""Copies of an event lie up to so much later."""
GROUP_ROWS = 1 << 19
"""Least rows that are made and written at once."""
FILE_GROUPS = 8


@dataclass(frozen=True)
class Expansion:
    """How a base is expanded.

    Attributes:
        base: Events with times and values.
        rates: Share of the base's events that cell ``(k, l)`` keeps, float64 ``(user copies, item copies)``.
        seed: Decides which.
    """

    base: RawEvents
    rates: np.ndarray
    seed: int

    @classmethod
    def of(cls, base: RawEvents, events: int, seed: int) -> Expansion:
        """An expansion to about ``events`` events."""
        copies = max(1, round(events / len(base)))
        return cls(base, cell_rates(_matrix(base), copies, max(1, round(copies**ITEM_POWER))), seed)

    def parts(self) -> Iterator[pa.Table]:
        """All events as tables of at least ``GROUP_ROWS`` rows, but for the last; user_id, item_id, timestamp, value.

        Memory holds one of them at a time.
        """
        items = _names("i", 0, self.rates.shape[1] * len(self.base.items.ids))
        rng = np.random.default_rng(self.seed)
        waiting: list[_Drawn] = []
        first = 0
        for copy, rates in enumerate(self.rates):
            waiting.append(_draw(self.base, copy - first, rates, rng))
            if sum(len(drawn.users) for drawn in waiting) >= GROUP_ROWS or copy == len(self.rates) - 1:
                width = len(self.base.users.ids)
                yield _table(waiting, _names("u", first * width, (copy + 1) * width), items)
                waiting, first = [], copy + 1


def expand_cached(base: RawEvents, events: int, seed: int, cache: Path, progress: Progress) -> Path:
    """The folder of Parquet files of an expansion, made where it is missing."""
    folder = cache / f"fractal-{events}-{seed}"
    if folder.is_dir():
        return folder
    progress.say(f"dataset: expanding {len(base):,} events to about {events:,}")
    temporary = cache / f"{TEMPORARY}{folder.name}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    writer = None
    for number, table in enumerate(Expansion.of(base, events, seed).parts()):
        if number % FILE_GROUPS == 0:
            if writer is not None:
                writer.close()
            writer = pq.ParquetWriter(temporary / f"part-{number // FILE_GROUPS:05}.parquet", table.schema)
        assert writer is not None
        writer.write_table(table)
    if writer is not None:
        writer.close()
    temporary.rename(folder)
    return folder


def cell_rates(matrix: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Probabilities float64 ``(rows, columns)``, each row adding up to 1: the reduced copy of ``matrix``, shifted to 0.

    Its singular vectors are those of ``matrix``, averaged over equal stretches and made orthonormal again; its singular
    values are the leading ones of ``matrix`` (Belletti et al., section 4).
    """
    left, spectrum, right = np.linalg.svd(matrix, full_matrices=False)
    rank = min(rows, columns)
    reduced = (_resized(left[:, :rank], rows) * spectrum[:rank]) @ _resized(right[:rank].T, columns).T
    shifted = reduced - reduced.min() + 1e-3 * (np.ptp(reduced) or 1.0)
    rates: np.ndarray = shifted / shifted.sum(axis=1, keepdims=True)
    return rates


def _resized(vectors: np.ndarray, count: int) -> np.ndarray:
    """``count`` averages over equal stretches of the rows of ``vectors`` ``(n, rank)``, columns made orthonormal."""
    sums = np.vstack([np.zeros(vectors.shape[1]), np.cumsum(vectors, axis=0)])
    ends = np.linspace(0, len(vectors), count + 1)
    whole = ends.astype(np.int64)
    after = np.minimum(whole + 1, len(vectors))
    at_ends = sums[whole] + (ends - whole)[:, None] * (sums[after] - sums[whole])
    left, _, right = np.linalg.svd(np.diff(at_ends, axis=0), full_matrices=False)
    nearest: np.ndarray = left @ right
    return nearest


def _matrix(base: RawEvents) -> np.ndarray:
    """Values float64 ``(U, I)``, 0 where there is no event."""
    matrix = np.zeros((len(base.users.ids), len(base.items.ids)))
    matrix[base.users.codes, base.items.codes] = base.values
    return matrix


@dataclass(frozen=True)
class _Drawn:
    users: np.ndarray
    items: np.ndarray
    times: np.ndarray
    values: np.ndarray


def _draw(base: RawEvents, copy: int, rates: np.ndarray, rng: np.random.Generator) -> _Drawn:
    """The events of one copy of all users; ``rates`` are those of its item copies."""
    assert base.timestamps is not None
    assert base.values is not None
    kept = [_kept(len(base), rate, rng) for rate in rates]
    places = np.concatenate(kept)
    owners = np.repeat(np.arange(len(rates)), [len(some) for some in kept])
    shifts = rng.integers(-SHIFT_SECONDS, SHIFT_SECONDS, len(base.users.ids))
    users = base.users.codes[places]
    times = base.timestamps[places].astype(np.int64) + shifts[users] + rng.integers(0, JITTER_SECONDS, len(places))
    return _Drawn(
        users + copy * len(base.users.ids),
        (base.items.codes[places] + owners * len(base.items.ids)).astype(np.int32),
        times,
        base.values[places],
    )


def _kept(count: int, rate: float, rng: np.random.Generator) -> np.ndarray:
    """Places of ``count``, each kept with probability ``rate``: drawn are the gaps between them, not all places."""
    found = [np.zeros(0, np.int64)]
    last = -1
    while last < count:
        left = (count - last) * rate
        some = last + np.cumsum(rng.geometric(rate, int(left + 4 * np.sqrt(left)) + 8))
        found.append(some)
        last = int(some[-1])
    places = np.concatenate(found)
    return places[: np.searchsorted(places, count)]


def _names(letter: str, first: int, last: int) -> pa.Array:
    return pa.array([f"{letter}{number}" for number in range(first, last)], pa.string())


def _table(parts: list[_Drawn], users: pa.Array, items: pa.Array) -> pa.Table:
    joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _Drawn.__dataclass_fields__}
    return pa.table(
        {
            "user_id": pa.DictionaryArray.from_arrays(pa.array(joined["users"].astype(np.int32)), users),
            "item_id": pa.DictionaryArray.from_arrays(pa.array(joined["items"]), items),
            "timestamp": joined["times"],
            "value": joined["values"],
        }
    )

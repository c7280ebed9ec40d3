"""Re-ranking: a list that is relevant and varied, and that keeps the rules of the business.

Greedy over the ranked candidates: each place takes the candidate with the largest
``(1 - diversity) * (relevance + boost) + diversity * bonus`` that no rule forbids. Relevance is the ranking score,
scaled per user to 0..1 over the pool. The bonus is

- ``mmr``: minus the largest cosine with an item already chosen (Carbonell and Goldstein 1998);
- ``dpp``: the gain in ``log det S`` of the chosen items, ``S = (1 + cosine) / 2``: the greedy search for the likeliest
  list of a determinantal point process, by incremental Cholesky factors (Chen, Zhang and Zhou 2018, algorithm 1,
  with their trade-off ``theta`` being ``1 - diversity``, and a small ridge on the diagonal).

A longer list begins with the shorter one. Vectorised over the batch; no randomness; ties go to the better rank.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from core.errors import RequestError
from core.tensors import MASKED

Method = Literal["none", "mmr", "dpp"]
NO_GROUP = -1
RIDGE = 1e-3
"""Added to the diagonal of S, whose rank is D + 1 at most: longer lists would divide by nothing but rounding."""
BEYOND_POOL = 1e6
"""How far candidates behind the pool stand behind those in it: above any relevance, bonus and boost."""


@dataclass(frozen=True)
class ItemTables:
    """What re-ranking knows of each item; the last row is the padding row.

    Attributes:
        vectors: float16 ``(I + 1, D)`` of length 1, or 0 where nothing is known; D may be 0.
        boosts: float32 ``(I + 1,)``, in shares of the distance between a list's best and worst relevance.
        groups: int32 ``(I + 1, G)``, capped groups that an item belongs to, ``NO_GROUP`` where none.
        limits: int32 ``(groups,)``, how many items of each group a list may hold.
    """

    vectors: np.ndarray
    boosts: np.ndarray
    groups: np.ndarray
    limits: np.ndarray

    @classmethod
    def empty(cls, n_items: int) -> ItemTables:
        """No vectors, no rules."""
        return cls(
            np.zeros((n_items + 1, 0), np.float16),
            np.zeros(n_items + 1, np.float32),
            np.full((n_items + 1, 0), NO_GROUP, np.int32),
            np.zeros(0, np.int32),
        )


@dataclass(frozen=True)
class Reranker:
    """How a release re-ranks.

    Attributes:
        method: What diversity means; ``none`` knows only the rules.
        diversity: Weight of the bonus where a request names none, 0..1.
        pool: Ranked candidates that compete for every place; those behind follow in order.
        tables: Items.
    """

    method: Method
    diversity: float
    pool: int
    tables: ItemTables

    @property
    def has_rules(self) -> bool:
        """True where boosts or caps can change a list of diversity 0."""
        return bool(len(self.tables.limits)) or bool(self.tables.boosts.any())

    def wanted(self, diversity: np.ndarray | None, count: int) -> np.ndarray:
        """The diversity of each of ``count`` users, float32 ``(B,)``: what the request says, or the default.

        Raises:
            RequestError: A value outside 0..1 or not a number, or above 0 where this release does not re-rank.
        """
        if diversity is None:
            return np.full(count, self.diversity, np.float32)
        wrong = diversity[~((diversity >= 0) & (diversity <= 1))]  # NaN compares false
        if len(wrong):
            raise RequestError(
                "diversity is out of range",
                where="tensor diversity",
                expected="a number from 0 to 1",
                found=str(float(wrong[0])),
            )
        if self.method == "none" and diversity.any():
            raise RequestError(
                "this release does not re-rank for diversity",
                where="tensor diversity",
                expected="0",
                found=str(float(diversity.max())),
                next_step="make a release with rerank.method = mmr or dpp",
            )
        return diversity.astype(np.float32)


def rerank_places(
    rows: np.ndarray, scores: np.ndarray, width: int, diversity: np.ndarray, reranker: Reranker
) -> np.ndarray:
    """Which ranked candidate stands at each place of the answer.

    Args:
        rows: int ``(B, R)``, best first.
        scores: float32 ``(B, R)``; ``<= MASKED`` marks no item.
        width: Places wanted, 1..R.
        diversity: float32 ``(B,)``, 0..1.
        reranker: The release's.

    Returns:
        int64 ``(B, width)``, places in ``rows``; -1 where no candidate is left that the rules allow.
    """
    tables = reranker.tables
    count, longest = rows.shape
    everyone = np.arange(count)
    free = scores > MASKED / 2
    inside = np.arange(longest) < reranker.pool
    base = _relevance(scores, free & inside) + tables.boosts[rows] * inside
    behind = -(BEYOND_POOL + np.arange(longest, dtype=np.float32))
    bonus = _bonus(reranker.method if diversity.any() else "none", tables.vectors, rows, width)
    caps = _Caps(tables.groups[rows], tables.limits)
    weight = diversity.astype(np.float32)[:, None]
    chosen = np.full((count, width), -1, dtype=np.int64)
    for place in range(width):
        value = np.where(inside, (1 - weight) * base + weight * bonus.values(), behind)
        value = np.where(free & caps.open(), value, -np.inf)
        at = value.argmax(1)
        found = np.isfinite(value[everyone, at])
        chosen[:, place] = np.where(found, at, -1)
        if not found.any() or place == width - 1:
            break
        free[everyone, at] = False
        bonus.add(at)
        caps.add(at, found)
    return chosen


def _relevance(scores: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """Scores scaled to 0..1 over the counted places of each list, float32 ``(B, R)``; 0 where all are equal."""
    high = scores.max(1, keepdims=True, where=counted, initial=MASKED)
    low = np.minimum(scores.min(1, keepdims=True, where=counted, initial=np.float32(-MASKED)), high)
    spread = np.where(high > low, high - low, np.float32(1))
    scaled: np.ndarray = (np.where(counted, scores, low) - low) / spread
    return scaled


class _Bonus(Protocol):
    def values(self) -> np.ndarray:
        """float32 ``(B, R)`` or a scalar."""
        ...

    def add(self, at: np.ndarray) -> None:
        """Takes the candidates at places ``at`` ``(B,)`` into the lists."""
        ...


class _NoBonus:
    def values(self) -> np.ndarray:
        return np.zeros((), np.float32)

    def add(self, at: np.ndarray) -> None:
        pass


class _Mmr:
    """Distance to the nearest chosen item."""

    def __init__(self, vectors: np.ndarray) -> None:
        self._vectors = vectors  # (B, R, D)
        self._nearest = np.full(vectors.shape[:2], -1, np.float32)

    def values(self) -> np.ndarray:
        return -self._nearest

    def add(self, at: np.ndarray) -> None:
        np.maximum(self._nearest, _cosines(self._vectors, at), out=self._nearest)


class _Dpp:
    """Squared Cholesky pivots of ``S`` given the chosen items: the factor by which each candidate grows det S."""

    def __init__(self, vectors: np.ndarray, width: int) -> None:
        self._vectors = vectors  # (B, R, D)
        self._pivots = np.full(vectors.shape[:2], 1 + RIDGE, np.float32)  # (B, R)
        self._factors = np.zeros((*vectors.shape[:2], width), np.float32)  # rows of the Cholesky factor
        self._size = 0

    def values(self) -> np.ndarray:
        values: np.ndarray = np.log(np.maximum(self._pivots, RIDGE))
        return values

    def add(self, at: np.ndarray) -> None:
        everyone = np.arange(len(at))
        known = self._factors[:, :, : self._size]
        explained = np.matmul(known, known[everyone, at][:, :, None])[..., 0]
        root = np.sqrt(np.maximum(self._pivots[everyone, at], RIDGE))[:, None]
        factor = ((1 + _cosines(self._vectors, at)) / 2 - explained) / root
        self._factors[:, :, self._size] = factor
        self._pivots -= factor * factor
        self._size += 1


class _Caps:
    """How often each candidate's capped groups have been used."""

    def __init__(self, groups: np.ndarray, limits: np.ndarray) -> None:
        self._groups = groups  # (B, R, G)
        self._left = np.where(groups >= 0, np.append(limits, 0)[groups], 1).astype(np.int32)

    def open(self) -> np.ndarray:
        """bool ``(B, R)``: no group of the candidate is full."""
        free: np.ndarray = (self._left > 0).all(2)
        return free

    def add(self, at: np.ndarray, found: np.ndarray) -> None:
        if self._groups.shape[2] == 0:
            return
        taken = np.where(found[:, None], self._groups[np.arange(len(at)), at], NO_GROUP)  # (B, G)
        for group in taken.T:
            self._left -= (self._groups == group[:, None, None]) & (group >= 0)[:, None, None]


def _bonus(method: Method, vectors: np.ndarray, rows: np.ndarray, width: int) -> _Bonus:
    if method == "none":
        return _NoBonus()
    pool = vectors[rows].astype(np.float32)
    return _Mmr(pool) if method == "mmr" else _Dpp(pool, width)


def _cosines(vectors: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Cosine of every candidate with the one at ``at``, ``(B, R)``."""
    picked = vectors[np.arange(len(at)), at]
    return np.matmul(vectors, picked[:, :, None])[..., 0]

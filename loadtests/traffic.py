"""Who asks: users by a power law, newcomers among them, drawn alike for every driver."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

NEWCOMER = "loadtest-newcomer-"


class Traffic:
    """Draws user ids.

    Args:
        users: Known users; the first is asked for most.
        skew: The r-th weighs ``r^-skew``.
        new_share: Share of requests for users whom nobody knows.
        rng: Draws.
    """

    def __init__(self, users: Sequence[str], skew: float, new_share: float, rng: np.random.Generator) -> None:
        if not users:
            raise ValueError("no users to draw from")
        weights = np.arange(1, len(users) + 1, dtype=np.float64) ** -skew
        self._users = list(users)
        self._edges = np.cumsum(weights / weights.sum())
        self._new_share, self._rng = new_share, rng
        self._newcomers = 0

    def draw(self, count: int) -> list[str]:
        """The users of one request."""
        return [self._one() for _ in range(count)]

    def _one(self) -> str:
        if self._rng.random() < self._new_share:
            self._newcomers += 1
            return f"{NEWCOMER}{self._rng.integers(1 << 62):x}-{self._newcomers}"
        place = int(np.searchsorted(self._edges, self._rng.random(), side="right"))
        return self._users[min(place, len(self._users) - 1)]

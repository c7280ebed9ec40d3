"""What stands between a burst or a broken Triton and the users: places, and a circuit breaker."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Literal


class Places:
    """At most ``size`` at once inside, at most ``waiting`` before the door; everybody else is turned away at once.

    For one event loop.
    """

    def __init__(self, size: int, waiting: int) -> None:
        self._free, self._most_waiting = size, waiting
        self._size = size
        self._queue: deque[asyncio.Future[None]] = deque()

    @property
    def inside(self) -> int:
        """How many have a place."""
        return self._size - self._free

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._queue)

    async def enter(self, seconds: float) -> bool:
        """Takes a place, within ``seconds``. False: no place; do not ``leave`` then."""
        if self._free:
            self._free -= 1
            return True
        if len(self._queue) >= self._most_waiting or seconds <= 0:
            return False
        turn = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        try:
            async with asyncio.timeout(seconds):
                await turn
        except TimeoutError:
            return turn.done() and not turn.cancelled()  # handed over in the very moment
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave()
            raise
        finally:
            if turn in self._queue:
                self._queue.remove(turn)
        return True

    def leave(self) -> None:
        """Gives the place to the one who waits longest."""
        while self._queue:
            turn = self._queue.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1


class Breaker:
    """Opens after ``failures`` in a row; then nothing passes for ``seconds``, after which one try decides.

    Args:
        failures: In a row.
        seconds: Until a try.
        clock: Monotonic seconds.
    """

    def __init__(self, failures: int, seconds: float, clock: Callable[[], float]) -> None:
        self._failures, self._seconds, self._clock = failures, seconds, clock
        self._in_a_row = 0
        self._next_try: float | None = None

    @property
    def state(self) -> Literal["closed", "open", "half-open"]:
        """closed: all pass."""
        if self._next_try is None:
            return "closed"
        return "open" if self._clock() < self._next_try else "half-open"

    def lets_pass(self) -> bool:
        """Whether a request may go to Triton now."""
        if self._next_try is None:
            return True
        if self._clock() < self._next_try:
            return False
        self._next_try = self._clock() + self._seconds  # this one tries, the others wait for what it finds
        return True

    def succeeded(self) -> None:
        """Triton answered."""
        self._in_a_row, self._next_try = 0, None

    def failed(self) -> None:
        """Triton did not answer."""
        self._in_a_row += 1
        if self._in_a_row >= self._failures:
            self._next_try = self._clock() + self._seconds

    def trip(self) -> None:
        """Opens at once: the probe knows."""
        self._in_a_row = self._failures
        self._next_try = self._clock() + self._seconds

"""Where a limiter's state is kept: the protocol of stores, and the clock that they go by."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol, TypeVar

from thanx_async.limiter._state import LimiterState

T = TypeVar("T")

_SAME_CLOCK = 5.0


class Store(Protocol):
    """Keeps the state and the clock that all who share it go by."""

    @property
    def state(self) -> LimiterState:
        """The state as last seen, to look at."""

    def now(self) -> float:
        """The time of the shared clock in seconds, as far as it is known here."""

    def look(self, view: Callable[[LimiterState, float], T]) -> T:
        """What ``view`` makes of the state as last seen and of the time, while nobody changes the state."""

    async def transact(self, change: Callable[[LimiterState, float], T]) -> T:
        """Load the state, change it and save it, as one: ``change`` gets the state and the time.

        It may be called again with another state if the first attempt was not saved. A cancellation is
        raised only after the transaction has ended.
        """


class Clock:
    """The time of the loops that use a store, and what it takes for several processes to go by one.

    Args:
        wall: where to take the time from at first, None for the loop's own. After that only the loop's time
            passes, so that a wall clock that is set does no harm.
    """

    def __init__(self, wall: Callable[[], float] | None = None) -> None:
        self._wall = wall
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._read: Callable[[], float] = lambda: 0.0
        self._offset = 0.0

    def attach(self) -> None:
        """Go by the running loop, if there is one."""
        with suppress(RuntimeError):
            loop = asyncio.get_running_loop()
            if loop is not self._loop:
                self._follow(loop)

    def _follow(self, loop: asyncio.AbstractEventLoop) -> None:
        """Loops that go by the one monotonic clock, as nearly all do, need no new beginning."""
        read = _fresh(loop)
        with self._lock:
            if read != self._read:
                self._read = read
                self._offset = self._wall() - read() if self._wall else 0.0
            self._loop = loop

    def time(self) -> float:
        return self._read() + self._offset

    def catch_up(self, seen: float) -> float:
        """Now, and not before ``seen``: where another's clock is ahead, this one is set to it.

        After a wall clock that was wrong, time goes on from there. What has passed in between is not known,
        but nobody waits longer than a window for it.
        """
        with self._lock:
            self._offset += max(0.0, seen - self.time())
            return max(self.time(), seen)


def _fresh(loop: asyncio.AbstractEventLoop) -> Callable[[], float]:
    """The loop's time, also while the loop is busy: uvloop looks at the clock once in a turn only, and
    clocks that lag would push each other on."""
    return time.monotonic if abs(loop.time() - time.monotonic()) < _SAME_CLOCK else loop.time

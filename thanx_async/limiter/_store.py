"""The `Store` protocol, which a limiter for another backend implements, and the clock of stores."""

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
    """Keeps the state and the clock that all users of a limiter share."""

    @property
    def state(self) -> LimiterState:
        """The state as last seen; not to be changed."""

    def now(self) -> float:
        """The time of the shared clock, in seconds, as far as it is known here."""

    def look(self, view: Callable[[LimiterState, float], T]) -> T:
        """The result of ``view`` for the state as last seen and the time, while nothing is changed."""

    async def transact(self, change: Callable[[LimiterState, float], T]) -> T:
        """Load, change and save the state in one transaction. ``change`` gets the state and the time.

        If saving fails because of another process, ``change`` may be called again with a newer state. A
        cancellation is raised only after the transaction has ended.
        """


class Clock:
    """The clock of a store, which several event loops or processes share.

    Args:
        wall: gives the initial time; None to start with the loop's own. Afterwards the time advances with the
            loop's clock, so setting the wall clock does no harm.
    """

    def __init__(self, wall: Callable[[], float] | None = None) -> None:
        self._wall = wall
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._read: Callable[[], float] = lambda: 0.0
        self._offset = 0.0

    def attach(self) -> None:
        """Follow the running event loop, if there is one."""
        with suppress(RuntimeError):
            loop = asyncio.get_running_loop()
            if loop is not self._loop:
                self._follow(loop)

    def _follow(self, loop: asyncio.AbstractEventLoop) -> None:
        """Follow another loop. Nearly all loops share the monotonic clock, and need no new offset."""
        read = _fresh(loop)
        with self._lock:
            if read != self._read:
                self._read = read
                self._offset = self._wall() - read() if self._wall else 0.0
            self._loop = loop

    def time(self) -> float:
        return self._read() + self._offset

    def catch_up(self, seen: float) -> float:
        """The time, and not earlier than ``seen``: a clock that is behind another process's is set to it.

        After a wrong wall clock, time continues from there; the longest possible wait is one window.
        """
        with self._lock:
            self._offset += max(0.0, seen - self.time())
            return max(self.time(), seen)


def _fresh(loop: asyncio.AbstractEventLoop) -> Callable[[], float]:
    """The loop's clock, read anew: uvloop reads it once per iteration only, and clocks that lag would push
    each other forward."""
    return time.monotonic if abs(loop.time() - time.monotonic()) < _SAME_CLOCK else loop.time

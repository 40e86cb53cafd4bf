"""The `Store` protocol, which each backend of the limiters implements, and `Clock`, the clock of stores."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol, TypeVar

from thanx_async._core.errors import ConfigurationError
from thanx_async.limiter._state import LimiterState

T = TypeVar("T")

_SAME_CLOCK = 5.0


class StoreAwayError(ConfigurationError):
    """The server of a limiter does not answer now. Requests wait until it does; ``store`` names it."""

    def __init__(self, message: str, *, store: str) -> None:
        super().__init__(message)
        self.store = store


class Store(Protocol):
    """The state and the clock that the queues of a limiter share. A backend such as Redis is a `Store`."""

    @property
    def is_remote(self) -> bool:
        """Whether a server holds the state, which may be away: a cancelled transaction ends at once, and its
        state may have been saved or not."""

    @property
    def state(self) -> LimiterState:
        """The state as last read or written here. Callers must not change it."""

    def now(self) -> float:
        """The time of the shared clock, in seconds, as far as it is known here."""

    def look(self, view: Callable[[LimiterState, float], T]) -> T:
        """The result of ``view``, which gets `state` and the time. No thread changes the state meanwhile."""

    async def transact(self, change: Callable[[LimiterState, float], T]) -> T:
        """Load, change and save the state in one transaction. ``change`` gets the state and the time.

        If another process makes saving fail, ``change`` may be called again with a newer state. A
        cancellation is raised only after the transaction has ended, unless the store is remote.

        Raises:
            StoreAwayError: the server that holds the state does not answer. The state may have been saved.
            ConfigurationError: the store cannot be used.
        """


class Clock:
    """The clock of a store, which several event loops or processes share.

    Args:
        wall: gives the initial time; None to start with the time of the event loop. Afterwards the time
            advances with the event loop's clock, so a change of the wall clock does no harm.
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
        read = _uncached(loop)
        with self._lock:
            if read != self._read:
                self._read = read
                self._offset = self._wall() - read() if self._wall else 0.0
            self._loop = loop

    def time(self) -> float:
        """The current time, in seconds."""
        return self._read() + self._offset

    def catch_up(self, seen: float) -> float:
        """The current time. A clock that is behind ``seen``, the time of another process, is set to it.

        If that wall clock was wrong, time continues from there; the longest possible wait is one window.
        """
        with self._lock:
            self._offset += max(0.0, seen - self.time())
            return max(self.time(), seen)


def _uncached(loop: asyncio.AbstractEventLoop) -> Callable[[], float]:
    """The event loop's clock, without a cache.

    uvloop reads its clock only once in each iteration, and lagging clocks would push each other forward.
    """
    return time.monotonic if abs(loop.time() - time.monotonic()) < _SAME_CLOCK else loop.time

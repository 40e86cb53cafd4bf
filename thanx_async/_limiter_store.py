"""Where a limiter's state is kept: the protocol of stores, and the memory of one process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol, TypeVar

from thanx_async._limiter_state import LimiterState

T = TypeVar("T")


class Store(Protocol):
    """Keeps the state and the clock that all who share it go by."""

    @property
    def state(self) -> LimiterState:
        """The state as last seen, to look at."""

    def now(self) -> float:
        """The time of the shared clock in seconds, as far as it is known here."""

    async def transact(self, change: Callable[[LimiterState, float], T]) -> T:
        """Load the state, change it and save it, as one: ``change`` gets the state and the time.

        It may be called again with another state if the first attempt was not saved. A cancellation is
        raised only after the transaction has ended.
        """


class Clock:
    """The loop's time, moved on where somebody who shares the state has seen a later one.

    Args:
        wall: where to take the time from at first, None for the loop's own. After that only the loop's time
            passes, so that a wall clock that is set does no harm.
    """

    def __init__(self, wall: Callable[[], float] | None = None) -> None:
        self._wall = wall
        self._loop: asyncio.AbstractEventLoop | None = None
        self._offset = 0.0

    def attach(self) -> None:
        """Go by the running loop, if there is one."""
        with suppress(RuntimeError):
            loop = asyncio.get_running_loop()
            if loop is not self._loop:
                self._loop = loop
                self._offset = self._wall() - loop.time() if self._wall else 0.0

    def time(self, seen: float = 0.0) -> float:
        """Now, and not before ``seen``. After a wall clock that was ahead this goes on from there: the time
        in between is lost, but nobody waits longer than a window."""
        if self._loop is None:
            return seen
        now = self._loop.time() + self._offset
        if now < seen:
            self._offset += seen - now
            now = seen
        return now


class MemoryStore:
    """The state of one process."""

    def __init__(self) -> None:
        self.state = LimiterState()
        self._clock = Clock()

    def now(self) -> float:
        self._clock.attach()
        return self._clock.time(self.state.clock)

    async def transact(self, change: Callable[[LimiterState, float], T]) -> T:
        return change(self.state, self.now())

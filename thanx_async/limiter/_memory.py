"""`LocalRateLimiter`, for one process, and the store that keeps its state in memory."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

from thanx_async.limiter._limits import THANX_RATE_LIMITS, RateLimit
from thanx_async.limiter._pacing import Pacing
from thanx_async.limiter._queue import QueuedLimiter
from thanx_async.limiter._reserve import DEFAULT_RESERVE
from thanx_async.limiter._state import LimiterState
from thanx_async.limiter._store import Clock

T = TypeVar("T")


class MemoryStore:
    """A `Store` in memory, guarded by a lock."""

    is_remote = False

    def __init__(self) -> None:
        self.state = LimiterState()
        self._clock = Clock()
        self._lock = threading.Lock()

    def now(self) -> float:
        """See `Store.now`."""
        self._clock.attach()
        return max(self._clock.time(), self.state.clock)

    def look(self, view: Callable[[LimiterState, float], T]) -> T:
        """See `Store.look`."""
        with self._lock:
            return view(self.state, self.now())

    async def transact(self, change: Callable[[LimiterState, float], T]) -> T:
        """See `Store.transact`."""
        self._clock.attach()
        with self._lock:
            return change(self.state, self._clock.catch_up(self.state.clock))


class LocalRateLimiter(QueuedLimiter):
    """A rate limiter for one process. Threads can share it, each with its own event loop.

    Args:
        limits: all limits that apply, in any order.
        strict: assume that Thanx counts each request as late as possible, which is safe for any network
            jitter. Otherwise the limiter moves closer to the limits until Thanx refuses a request.
        reserve: the share of each window but the shortest that is kept for requests for which somebody waits
            (`Lane.INTERACTIVE`), from 0 to 0.9. After 15 minutes without any, at most a fiftieth is kept, and
            after a day nothing.

    Raises:
        ConfigurationError: an argument is invalid; the message says which one and why.
    """

    def __init__(
        self,
        limits: Sequence[RateLimit] = THANX_RATE_LIMITS,
        *,
        strict: bool = True,
        reserve: float = DEFAULT_RESERVE,
    ) -> None:
        super().__init__(Pacing(limits, strict=strict, reserve=reserve), MemoryStore())

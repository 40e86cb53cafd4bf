"""The limiter of one process: its state in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from thanx_async.limiter._limits import THANX_RATE_LIMITS, RateLimit
from thanx_async.limiter._pacing import Pacing
from thanx_async.limiter._queue import QueuedLimiter
from thanx_async.limiter._state import LimiterState
from thanx_async.limiter._store import Clock

T = TypeVar("T")


class MemoryStore:
    """The state of one process."""

    def __init__(self) -> None:
        self.state = LimiterState()
        self._clock = Clock()

    def now(self) -> float:
        self._clock.attach()
        return max(self._clock.time(), self.state.clock)

    async def transact(self, change: Callable[[LimiterState, float], T]) -> T:
        self._clock.attach()
        return change(self.state, self._clock.catch_up(self.state.clock))


class LocalRateLimiter(QueuedLimiter):
    """Keeps the limits within this process.

    Args:
        limits: all that apply, in any order.
        strict: count a request as late as it can have arrived, which is right for any jitter of the
            network. Otherwise the limiter comes closer to the limits until it is refused.

    Raises:
        ConfigurationError: the limits are unusable; the message says which and why.
    """

    def __init__(self, limits: Sequence[RateLimit] = THANX_RATE_LIMITS, *, strict: bool = True) -> None:
        super().__init__(Pacing(limits, strict=strict), MemoryStore())

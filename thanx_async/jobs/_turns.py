"""Bounds concurrent polls, and spaces them while the rate limits are nearly spent."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from thanx_async._core.tasks import RESOLUTION, changed
from thanx_async.limiter import RateLimiter, in_flight

_UNANSWERED = 5.0
_RESERVED = 2
_ISSUING = 5.0


class PollTurns:
    """Gives polls their turn, first come, first served.

    Only as many polls enter the limiter's queue as can be in flight. Other polls wait here, where a poll that
    is no longer needed can be dropped. A poll without an answer for 5 s no longer counts, as long as two
    requests of the smallest limit remain for issuing. While requests are issued, by any process, and less
    than half of a rate limit is free, turns are spaced evenly over its window, so that polls leave room for
    issuing.
    """

    def __init__(self, limiter: RateLimiter) -> None:
        self._limiter = limiter
        self._polling: dict[asyncio.Task[object] | None, float] = {}
        self._queue: dict[asyncio.Event, None] = {}
        self._last_turn = -math.inf

    @asynccontextmanager
    async def turn(self, wake: asyncio.Event, is_needed: Callable[[], bool]) -> AsyncIterator[None]:
        """Wait for a turn, which lasts for the block; or only until the poll is not needed any more.

        Args:
            wake: an event of one poller, set when ``is_needed`` may have changed.
            is_needed: whether the poll is still needed.
        """
        self._queue[wake] = None
        try:
            while is_needed() and (next(iter(self._queue)) is not wake or not self._has_room()):
                wake.clear()
                await changed(wake, _UNANSWERED)
            await self._spread(wake, is_needed)
            self._polling[asyncio.current_task()] = asyncio.get_running_loop().time()
        finally:
            del self._queue[wake]
            self._wake()
        try:
            yield
        finally:
            del self._polling[asyncio.current_task()]
            self._wake()

    def _has_room(self) -> bool:
        limits, now = self._limiter.limits, asyncio.get_running_loop().time()
        answering = sum(now - since < _UNANSWERED for since in self._polling.values())
        concurrency = in_flight(limits, self._limiter.status().latency)
        cap = max(concurrency, min(limit.requests for limit in limits) - _RESERVED)
        return answering < concurrency and len(self._polling) < cap

    async def _spread(self, wake: asyncio.Event, is_needed: Callable[[], bool]) -> None:
        now = asyncio.get_running_loop().time
        while is_needed():
            status = self._limiter.status()
            issuing = status.issuing_ago is not None and status.issuing_ago < _ISSUING
            scarce = [row.limit for row in status.windows if issuing and 2 * row.free < row.limit.requests]
            interval = max((limit.seconds / limit.requests for limit in scarce), default=0.0)
            if (wait := self._last_turn + interval - now()) <= RESOLUTION:
                self._last_turn = now()
                return
            wake.clear()
            await changed(wake, wait)

    def _wake(self) -> None:
        for turn in self._queue:
            turn.set()
            return

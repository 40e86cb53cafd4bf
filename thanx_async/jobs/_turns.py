"""Bounds concurrent polls, and spaces them while the rate limits are nearly spent."""

from __future__ import annotations

import asyncio
import math
from types import TracebackType

from thanx_async._core.tasks import RESOLUTION, changed
from thanx_async.limiter import RateLimiter, in_flight

_UNANSWERED = 5.0
_RESERVED = 2
_ISSUING = 5.0


class PollTurns:
    """An async context manager that gives polls their turn, first come, first served.

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

    async def __aenter__(self) -> None:
        turn = asyncio.Event()
        self._queue[turn] = None
        try:
            while next(iter(self._queue)) is not turn or not self._has_room():
                turn.clear()
                await changed(turn, _UNANSWERED)
            await self._spread()
            self._polling[asyncio.current_task()] = asyncio.get_running_loop().time()
        finally:
            del self._queue[turn]
            self._wake()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        del self._polling[asyncio.current_task()]
        self._wake()

    def _has_room(self) -> bool:
        limits, now = self._limiter.limits, asyncio.get_running_loop().time()
        answering = sum(now - since < _UNANSWERED for since in self._polling.values())
        concurrency = in_flight(limits, self._limiter.status().latency)
        cap = max(concurrency, min(limit.requests for limit in limits) - _RESERVED)
        return answering < concurrency and len(self._polling) < cap

    async def _spread(self) -> None:
        status = self._limiter.status()
        issuing = status.issuing_ago is not None and status.issuing_ago < _ISSUING
        scarce = [row.limit for row in status.windows if issuing and 2 * row.free < row.limit.requests]
        interval = max((limit.seconds / limit.requests for limit in scarce), default=0.0)
        now = asyncio.get_running_loop().time()
        wait = self._last_turn + interval - now
        if wait > RESOLUTION:
            await asyncio.sleep(wait)
        self._last_turn = max(now, now + wait)

    def _wake(self) -> None:
        for turn in self._queue:
            turn.set()
            return

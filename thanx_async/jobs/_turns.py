"""Whose turn it is to poll."""

from __future__ import annotations

import asyncio
import math
from types import TracebackType

from thanx_async._core.tasks import RESOLUTION, changed
from thanx_async.limiter import RateLimiter, in_flight

_LONG = 5.0
_LEFT = 2


class PollTurns:
    """Lets only as many polls at once go to the limiter as can be under way, first come, first served.

    One that gets no answer for long does not count any more, as far as that leaves requests for issuing. The
    others wait here, where a poll that is no longer needed is dropped. While less than half of a window
    is left, turns are spread at the pace that the window bears for ever, so that polling does not spend
    what issuing needs.
    """

    def __init__(self, limiter: RateLimiter) -> None:
        self._limiter = limiter
        self._inside: dict[asyncio.Task[object] | None, float] = {}
        self._queue: dict[asyncio.Event, None] = {}
        self._last = -math.inf

    async def __aenter__(self) -> None:
        turn = asyncio.Event()
        self._queue[turn] = None
        try:
            while next(iter(self._queue)) is not turn or not self._has_room():
                turn.clear()
                await changed(turn, _LONG)
            await self._spread()
            self._inside[asyncio.current_task()] = asyncio.get_running_loop().time()
        finally:
            del self._queue[turn]
            self._wake()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        del self._inside[asyncio.current_task()]
        self._wake()

    def _has_room(self) -> bool:
        limits, now = self._limiter.limits, asyncio.get_running_loop().time()
        young = sum(now - since < _LONG for since in self._inside.values())
        usual = in_flight(limits, self._limiter.status().latency)
        most = max(usual, min(limit.requests for limit in limits) - _LEFT)
        return young < usual and len(self._inside) < most

    async def _spread(self) -> None:
        scarce = [row.limit for row in self._limiter.status().windows if 2 * row.free < row.limit.requests]
        interval = max((limit.seconds / limit.requests for limit in scarce), default=0.0)
        now = asyncio.get_running_loop().time()
        wait = self._last + interval - now
        if wait > RESOLUTION:
            await asyncio.sleep(wait)
        self._last = max(now, now + wait)

    def _wake(self) -> None:
        for turn in self._queue:
            turn.set()
            return

"""A rate limiter of the user's own that fails."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from thanx_async import LocalRateLimiter
from thanx_async.limiter import Lane, Slot


class Leaving(LocalRateLimiter):
    """A limiter of the user's own whose second slot fails while the first request is under way."""

    def __init__(self, error: BaseException, fails_at: tuple[Lane, int]) -> None:
        super().__init__()
        self.calls = dict.fromkeys(Lane, 0)
        self._error = error
        self._fails_at = fails_at

    @asynccontextmanager
    async def slot(self, lane: Lane = Lane.ISSUE) -> AsyncIterator[Slot]:
        self.calls[lane] += 1
        if (lane, self.calls[lane]) == self._fails_at:
            await asyncio.sleep(0.5)
            raise self._error
        async with super().slot(lane) as slot:
            yield slot

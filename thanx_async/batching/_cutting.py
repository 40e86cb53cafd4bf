"""Decides when a micro-batch is cut: by its guests, by the rate limits, and by the turn of this process."""

from __future__ import annotations

import asyncio
from math import inf

from thanx_async.batching._rules import min_interval
from thanx_async.batching._waiting_room import WaitingRoom
from thanx_async.limiter import PacedLimiter, RateLimiter

_LEAD = 0.02  # seconds by which a batch joins the queue early, so that a poll does not take the slot
_RECHECK = 0.25
_LONGEST_TURN = 1.0


class CutTimer:
    """Tells how long to wait before the next batch is cut. The waits are for a room where guests wait.

    Args:
        limiter: the rate limiter.
        waiting: the guests.
        linger: seconds for which the first guest of a batch waits for others.
    """

    def __init__(self, limiter: RateLimiter, waiting: WaitingRoom, *, linger: float) -> None:
        self._limiter = limiter
        self._paced = limiter if isinstance(limiter, PacedLimiter) else None
        self._waiting = waiting
        self._linger = linger
        self._last_cut = -inf

    def cut(self) -> None:
        """A batch was cut."""
        self._last_cut = asyncio.get_running_loop().time()

    def wait(self, *, is_full: bool) -> float:
        """Seconds until a batch should be cut, as far as is known now.

        Args:
            is_full: there is nothing to be gained by waiting for more guests.
        """
        status = self._limiter.status()
        if not is_full:
            due = max(self._waiting.oldest + self._linger, self._last_cut + min_interval(status))
            wait = due - asyncio.get_running_loop().time()
            if wait > 0:
                return wait
        return min(status.held_for - _LEAD, _RECHECK)

    async def wait_for_turn(self, *, is_full: bool) -> float | None:
        """Seconds until a batch should be cut, as far as other processes are concerned; None if nobody waits
        any more.
        """
        if self._paced is None or is_full:
            return 0.0
        wait = await self._paced.turn_in(asyncio.get_running_loop().time() - self._waiting.oldest)
        return min(wait, _LONGEST_TURN) if self._waiting else None

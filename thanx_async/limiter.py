"""The rate limits of a credential, kept by everybody who sends with it.

Thanx allows 5 requests a second and 2,000 in 15 minutes, over all endpoints together, and does not say how
it counts. Source: docs.thanx.com, partner/overview.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from enum import Enum
from types import TracebackType
from typing import Protocol, Self

import attrs

from thanx_async._pacing import Pacing, RateLimit, least_duration

__all__ = [
    "THANX_RATE_LIMITS",
    "Lane",
    "LimiterStatus",
    "LocalRateLimiter",
    "RateLimit",
    "RateLimiter",
    "Slot",
    "WindowStatus",
    "least_duration",
]

_log = logging.getLogger(__name__)

THANX_RATE_LIMITS = (RateLimit(5, 1), RateLimit(2000, 900))
"""What Thanx allows unless it has granted more."""

_LONG_WAIT = 5.0
_LEAST_WAIT = 1e-6  # a wait below the resolution of the loop's clock would spin
_POLL_TURN = 9


class Lane(Enum):
    """Issuing and revoking go before polling; a waiting poll still gets one slot in ten."""

    ISSUE = "issue"
    POLL = "poll"


class Slot(Protocol):
    """The permission to send one request."""

    def answered(self, status: int, headers: Mapping[str, str]) -> None:
        """Tell what came back; ``headers`` are looked up without regard to case."""


@attrs.frozen
class WindowStatus:
    """How much of one limit is spent."""

    limit: RateLimit
    used: int
    free: int


@attrs.frozen
class LimiterStatus:
    """The state of a limiter.

    ``held_for``: seconds until the next request may go, 0 if it may go now. ``reason``: what it waits for.
    ``refused``: answers with status 429 so far. ``waiting``: requests in the queue. ``latency``: the 90th
    percentile of recent round trips in seconds, None before the first.
    """

    windows: tuple[WindowStatus, ...]
    held_for: float
    reason: str | None
    refused: int
    waiting: int
    latency: float | None


class RateLimiter(Protocol):
    """Gives each request its slot: ``async with limiter.slot(lane) as slot: ... slot.answered(...)``.

    A request that ends without an answer counts as sent. After a 429 the caller asks for a new slot; all
    the waiting happens here.
    """

    @property
    def limits(self) -> tuple[RateLimit, ...]: ...

    def slot(self, lane: Lane = Lane.ISSUE) -> AbstractAsyncContextManager[Slot]: ...

    def status(self) -> LimiterStatus: ...


class LocalRateLimiter:
    """Keeps the limits within this process.

    Args:
        limits: all that apply, in any order.
        strict: count a request as late as it can have arrived, which is right for any jitter of the
            network. Otherwise the limiter comes closer to the limits until it is refused.

    Raises:
        ConfigurationError: no limits.
    """

    def __init__(self, limits: Sequence[RateLimit] = THANX_RATE_LIMITS, *, strict: bool = True) -> None:
        self._pacing = Pacing(limits, strict=strict)
        self._queues: dict[Lane, OrderedDict[_LocalSlot, asyncio.Event]] = {
            lane: OrderedDict() for lane in Lane
        }
        self._passed_over = 0
        self._announced = False

    def __repr__(self) -> str:
        windows = ", ".join(f"{limit.requests:,} in {limit.seconds:g} s" for limit in self._pacing.limits)
        return f"<LocalRateLimiter {windows}; refused {self._pacing.refusal.count}>"

    @property
    def limits(self) -> tuple[RateLimit, ...]:
        return self._pacing.limits

    def slot(self, lane: Lane = Lane.ISSUE) -> AbstractAsyncContextManager[Slot]:
        """A slot for one request, to be entered once."""
        return _LocalSlot(self, lane)

    def status(self) -> LimiterStatus:
        """The state now; called on the event loop."""
        now = asyncio.get_running_loop().time()
        pacing = self._pacing
        due, reason = pacing.due(now)
        held = max(0.0, due - now)
        windows = tuple(
            WindowStatus(limit, used, limit.requests - used)
            for limit, used in ((limit, pacing.used(limit, now)) for limit in pacing.limits)
        )
        return LimiterStatus(
            windows=windows,
            held_for=held,
            reason=reason if held else None,
            refused=pacing.refusal.count,
            waiting=sum(map(len, self._queues.values())),
            latency=pacing.latency,
        )

    async def acquire(self, slot: _LocalSlot) -> int:
        """Wait for the slot's turn and for the limits. Nothing is booked before the last line."""
        loop = asyncio.get_running_loop()
        queue = self._queues[slot.lane]
        queue[slot] = change = asyncio.Event()
        try:
            while True:
                change.clear()
                wait: float | None = None
                if self._first() is slot:
                    due, reason = self._pacing.due(loop.time())
                    if due <= loop.time():
                        break
                    wait = max(due - loop.time(), _LEAST_WAIT)
                    self._announce(wait, reason)
                await _changed(change, wait)
            self._take_turn(slot.lane)
            return self._pacing.book(loop.time())
        finally:
            del queue[slot]
            self._wake()

    def answered(self, token: int, status: int, headers: Mapping[str, str]) -> None:
        now = asyncio.get_running_loop().time()
        retry_after, date = headers.get("Retry-After", ""), headers.get("Date", "")
        self._pacing.answered(token, now, status, retry_after, date)

    def release(self, token: int) -> None:
        self._pacing.release(token, asyncio.get_running_loop().time())
        self._wake()

    def _first(self) -> _LocalSlot | None:
        issuing, polling = self._queues[Lane.ISSUE], self._queues[Lane.POLL]
        polls_turn = not issuing or self._passed_over >= _POLL_TURN
        return next(iter(polling if polling and polls_turn else issuing), None)

    def _take_turn(self, lane: Lane) -> None:
        self._announced = False
        waits = lane is Lane.ISSUE and bool(self._queues[Lane.POLL])
        self._passed_over = self._passed_over + 1 if waits else 0

    def _wake(self) -> None:
        if (first := self._first()) is not None:
            self._queues[first.lane][first].set()

    def _announce(self, wait: float, reason: str) -> None:
        if wait > _LONG_WAIT and not self._announced and wait != float("inf"):
            self._announced = True
            _log.warning("requests wait %.0f s for %s", wait, reason)


class _LocalSlot:
    __slots__ = ("_limiter", "_token", "lane")

    def __init__(self, limiter: LocalRateLimiter, lane: Lane) -> None:
        self._limiter = limiter
        self._token = 0
        self.lane = lane

    async def __aenter__(self) -> Self:
        self._token = await self._limiter.acquire(self)
        return self

    def answered(self, status: int, headers: Mapping[str, str]) -> None:
        self._limiter.answered(self._token, status, headers)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._limiter.release(self._token)


async def _changed(change: asyncio.Event, wait: float | None) -> None:
    """Return when something has changed, or after ``wait`` seconds (None, infinity: only then)."""
    if wait is None or wait == float("inf"):
        await change.wait()
        return
    try:
        async with asyncio.timeout(wait):
            await change.wait()
    except TimeoutError:
        return

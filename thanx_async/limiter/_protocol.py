"""The `RateLimiter` protocol and its types: slots, lanes and status."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from enum import Enum
from typing import Protocol

import attrs

from thanx_async.limiter._limits import RateLimit


class Lane(Enum):
    """The kind of a request. Issuing and revoking take precedence; polling still gets one slot in ten."""

    ISSUE = "issue"
    POLL = "poll"


class Slot(Protocol):
    """Permission to send one request."""

    def answered(self, status: int, headers: Mapping[str, str]) -> None:
        """Report the answer to the limiter. Lookups in ``headers`` must ignore case."""


@attrs.frozen
class WindowStatus:
    """How many requests of one limit are used, and how many are free.

    Attributes:
        limit: the limit.
        used: the requests that Thanx may still count.
        free: how many more may be sent now.
        returns: when used requests come free again: seconds from now, and their number, soonest first; empty
            from a limiter that does not tell.
    """

    limit: RateLimit
    used: int
    free: int
    returns: tuple[tuple[float, int], ...] = attrs.field(default=(), repr=False)

    def __str__(self) -> str:
        return f"{self.used:,} of {self.limit}"


@attrs.frozen
class LimiterStatus:
    """The state of a limiter.

    Attributes:
        windows: the use of each limit, the shortest window first.
        held_for: seconds until the next request may be sent; 0 if a request may be sent now.
        held_until: the same moment in UTC; None if a request may be sent now.
        reason: why requests wait; None if they do not wait.
        refused: the number of 429 answers so far.
        waiting: the number of waiting requests in this process.
        latency: the 90th percentile of this process's recent round trips, in seconds; None before the first.
        no_answer_for: seconds since the current outage began; None without an outage.
    """

    windows: tuple[WindowStatus, ...]
    held_for: float
    held_until: datetime | None
    reason: str | None
    refused: int
    waiting: int
    latency: float | None
    no_answer_for: float | None = None

    def __str__(self) -> str:
        text = ", ".join(map(str, self.windows))
        if self.no_answer_for is not None:
            text += f"; no answer from Thanx for {self.no_answer_for:.0f} s"
        if self.held_for:
            text += f"; next in {self.held_for:.1f} s after {self.reason}"
        return f"{text}; {self.waiting:,} waiting, {self.refused:,} refused"


class RateLimiter(Protocol):
    """Gives each request a slot: ``async with limiter.slot(lane) as slot: ... slot.answered(...)``.

    A request that ends without an answer counts as sent. After a 429 the caller asks for another slot; the
    limiter does all the waiting.
    """

    @property
    def limits(self) -> tuple[RateLimit, ...]:
        """All limits that apply, the shortest window first."""

    def slot(self, lane: Lane = Lane.ISSUE) -> AbstractAsyncContextManager[Slot]:
        """A slot for one request. Entering the slot waits until the request may be sent."""

    def status(self) -> LimiterStatus:
        """The limiter's current state. Does not wait."""

"""The `RateLimiter` protocol and its types: slots, lanes and status."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from enum import Enum
from typing import Protocol, runtime_checkable

import attrs

from thanx_async.limiter._limits import RateLimit


class Lane(Enum):
    """The kind of a request. Kinds are listed by precedence, but each has its share.

    While several kinds wait, polls get one slot in ten, and bulk requests get one in four of the rest.

    INTERACTIVE: somebody waits for this one, as for the batches of `AsyncBatcher.add`, an outbox,
        `ThanxClient.issue_rewards`, and revocations. Only these may use a limiter's reserve.
    ISSUE: the requests of a run, of which there may be thousands.
    POLL: requests that only read. They may use half of a reserve, evenly spread over the window.
    """

    INTERACTIVE = "interactive"
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
        reserved: the number of requests, used or free, that are kept from bulk requests.
        returns: when used requests come free again: seconds from now, and their number, soonest first; empty
            from a limiter that does not tell.
    """

    limit: RateLimit
    used: int
    free: int
    reserved: int = 0
    returns: tuple[tuple[float, int], ...] = attrs.field(default=(), repr=False)

    def __str__(self) -> str:
        reserved = f" ({self.reserved:,} reserved)" if self.reserved else ""
        return f"{self.used:,} of {self.limit}{reserved}"


@attrs.frozen
class LimiterStatus:
    """The state of a limiter.

    Attributes:
        windows: the use of each limit, the shortest window first.
        held_for: seconds until the next interactive request may be sent; 0 if it may be sent now.
        held_until: the same moment in UTC; None if an interactive request may be sent now.
        reason: why requests wait; None if they do not wait.
        refused: the number of 429 answers so far.
        waiting: the number of waiting requests in this process.
        latency: the 90th percentile of this process's recent round trips, in seconds; None before the first.
        no_answer_for: seconds since the current outage began; None without an outage.
        issuing_ago: seconds since any process sent a request other than a poll, as far as this process has
            seen; 0 while such a request waits for a slot, and None if none was ever sent.
        bulk_held_for: seconds until the next bulk request may be sent, which the reserve may delay.
        bulk_reason: why bulk requests wait; None if they do not wait.
    """

    windows: tuple[WindowStatus, ...]
    held_for: float
    held_until: datetime | None
    reason: str | None
    refused: int
    waiting: int
    latency: float | None
    no_answer_for: float | None = None
    issuing_ago: float | None = None
    bulk_held_for: float = 0.0
    bulk_reason: str | None = None

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


@runtime_checkable
class PacedLimiter(RateLimiter, Protocol):
    """A limiter that spaces the micro-batches of all processes, and lets the oldest guest go first."""

    async def turn_in(self, waited: float) -> float:
        """Seconds until the next micro-batch should be cut and ask for an interactive slot; 0 for now.

        The turn is kept for a second.

        Args:
            waited: for how long the oldest guest of this process has waited, in seconds.
        """

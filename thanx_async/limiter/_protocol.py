"""What a rate limiter is, for those who use one or write one."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from enum import Enum
from typing import Protocol

import attrs

from thanx_async.limiter._limits import RateLimit


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

    def __str__(self) -> str:
        return f"{self.used:,} of {self.limit}"


@attrs.frozen
class LimiterStatus:
    """The state of a limiter.

    Attributes:
        windows: each limit, the shortest window first.
        held_for: seconds until the next request may go, 0 if it may go now.
        held_until: the same as a time of the wall clock in UTC, None if it may go now.
        reason: what it waits for, None if it may go now.
        refused: answers with status 429 so far.
        waiting: requests of this process in the queue.
        latency: the 90th percentile of this process's recent round trips in seconds, None before the first.
        no_answer_for: seconds since Thanx last answered, in an outage; None outside of one.
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
    """Gives each request its slot: ``async with limiter.slot(lane) as slot: ... slot.answered(...)``.

    A request that ends without an answer counts as sent. After a 429 the caller asks for a new slot; all
    the waiting happens here.
    """

    @property
    def limits(self) -> tuple[RateLimit, ...]: ...

    def slot(self, lane: Lane = Lane.ISSUE) -> AbstractAsyncContextManager[Slot]: ...

    def status(self) -> LimiterStatus: ...

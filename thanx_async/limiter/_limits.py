"""`RateLimit`, Thanx's published limits, and calculations: least duration, requests in flight."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import attrs

from thanx_async._core import checks

_MOST_IN_FLIGHT = 32
_BUDGET_SHARE = 2 / 3
_MAX_PACE = 8.0


@attrs.frozen
class RateLimit:
    """At most ``requests`` requests within any ``seconds`` seconds."""

    requests: int = attrs.field()
    seconds: float = attrs.field()

    @requests.validator
    def _check_requests(self, _: object, value: object) -> None:
        checks.number("RateLimit.requests", value, 1, whole=True)

    @seconds.validator
    def _check_seconds(self, _: object, value: object) -> None:
        checks.number("RateLimit.seconds", value, 0.001)

    def __str__(self) -> str:
        return f"{self.requests:,} in {self.seconds:g} s"

    def implies(self, other: RateLimit) -> bool:
        """Whether requests that keep this limit always keep the other one, too."""
        return self != other and self.requests <= other.requests and self.seconds >= other.seconds


THANX_RATE_LIMITS = (RateLimit(5, 1), RateLimit(2000, 900))
"""The limits of a credential for which Thanx has not granted more."""


def checked_limits(limits: Sequence[RateLimit]) -> tuple[RateLimit, ...]:
    """The limits without duplicates, the shortest window first.

    Raises:
        ConfigurationError: the list is empty, or an item is not a `RateLimit`.
    """
    if not isinstance(limits, Iterable):
        raise checks.wrong("limits", f"must be a list of RateLimit, not {limits!r}")
    given = list(limits)
    for index, limit in enumerate(given):
        if not isinstance(limit, RateLimit):
            raise checks.wrong(f"limits[{index}]", f"must be a RateLimit, not {limit!r}")
    if not given:
        raise checks.wrong("limits", "is empty: give at least one RateLimit")
    return tuple(sorted(set(given), key=lambda limit: (limit.seconds, limit.requests)))


def least_duration(requests: int, limits: Sequence[RateLimit]) -> float:
    """The least time from the first to the last of ``requests`` requests, in seconds.

    Requests are spaced evenly within the shortest window, and keep all limits.
    """
    pace = without_implied(checked_limits(limits))[0]
    sent: list[float] = []
    for number in range(requests):
        earliest = [sent[-1] + pace.seconds / pace.requests] if sent else [0.0]
        earliest += [
            sent[number - limit.requests] + limit.seconds for limit in limits if number >= limit.requests
        ]
        sent.append(max(earliest))
    return sent[-1] if sent else 0.0


def without_implied(limits: tuple[RateLimit, ...]) -> list[RateLimit]:
    """The limits that no other limit implies, the shortest window first."""
    return [limit for limit in limits if not any(other.implies(limit) for other in limits)]


def trickle_interval(free: Iterable[tuple[RateLimit, int]]) -> float:
    """Seconds from one request to the next, for requests that come steadily: at most 8.

    The free requests of all limits but the one with the shortest window are spread over two thirds of the
    window. A service that spends them at once would stall until the window has passed.

    Args:
        free: the limits, each with its number of free requests.
    """
    rows = list(free)
    shortest = min((limit.seconds for limit, _ in rows), default=0.0)
    intervals = [
        limit.seconds * _BUDGET_SHARE / max(1, count) for limit, count in rows if limit.seconds > shortest
    ]
    return min(_MAX_PACE, max(intervals, default=0.0))


def in_flight(limits: Sequence[RateLimit], latency: float | None) -> int:
    """How many requests to keep in flight: the rate times the latency (Little's law), plus one, from 2 to 32.

    Args:
        limits: the rate limits; the one with the shortest window sets the rate.
        latency: the time from a request to its answer, in seconds; None if it is not known yet.
    """
    shortest = min(limits, key=lambda limit: (limit.seconds, limit.requests))
    needed = shortest.requests / shortest.seconds * (latency or 0.0)
    return min(_MOST_IN_FLIGHT, max(2, math.ceil(needed) + 1))

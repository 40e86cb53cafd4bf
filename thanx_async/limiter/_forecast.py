"""Predicts when batches are accepted and outcomes are known, from a limiter's status. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import attrs

from thanx_async.limiter._limits import without_implied
from thanx_async.limiter._protocol import LimiterStatus, WindowStatus

_ROUND_TRIP = 0.1
_UNSURE = 0.1
"""The part of a round trip for which it stays open when Thanx counts a request."""


@attrs.frozen
class Forecast:
    """What is to be expected if nothing else is sent, and every job takes one poll. Seconds from now.

    Attributes:
        last_accepted: when the last batch is accepted; 0 if none is left to send.
        all_known: when the last outcome is known; 0 if all are.
    """

    last_accepted: float
    all_known: float


def forecast(status: LimiterStatus, *, unsent: int, ends: Iterable[float], job_time: float) -> Forecast:
    """Follow the requests that are left, one by one: batches first, then a poll for each job.

    Args:
        status: the status of the limiter.
        unsent: how many batches are still to be sent.
        ends: when the jobs end that are accepted already.
        job_time: how long a job takes from its acceptance to its end.
    """
    round_trip = _ROUND_TRIP if status.latency is None else status.latency
    slots, jobs = _Slots(status, round_trip), list(ends)
    last_accepted = all_known = now = 0.0
    for _ in range(unsent):
        now = slots.take(now)
        last_accepted = now + round_trip
        jobs.append(last_accepted + job_time)
    for end in sorted(jobs):
        now = slots.take(max(now, end))
        all_known = now + round_trip
    return Forecast(last_accepted, all_known)


class _Slots:
    """The earliest times of further requests."""

    def __init__(self, status: LimiterStatus, round_trip: float) -> None:
        kept = without_implied(tuple(window.limit for window in status.windows))
        self._windows = [_Window(window) for window in status.windows if window.limit in kept]
        self._spacing = min((limit.seconds / limit.requests for limit in kept[:1]), default=0.0)
        self._next = max(status.held_for, status.bulk_held_for)
        self._counted = _UNSURE * round_trip

    def take(self, earliest: float) -> float:
        """The time of the next request, which is sent then."""
        moment = max(earliest, self._next, *(window.free_at() for window in self._windows))
        for window in self._windows:
            window.add(moment + self._counted)
        self._next = moment + self._spacing
        return moment


class _Window:
    """The requests that count against one limit, by the times at which they stop to count."""

    def __init__(self, status: WindowStatus) -> None:
        self._seconds = status.limit.seconds
        self._allowed = max(1, status.limit.requests - status.reserved)
        returns = status.returns or ((status.limit.seconds, status.used),)
        times = (time for time, count in returns for _ in range(count))
        self._returns = deque(times, maxlen=self._allowed)

    def free_at(self) -> float:
        is_full = len(self._returns) == self._allowed
        return self._returns[0] if is_full else 0.0

    def add(self, counted: float) -> None:
        self._returns.append(counted + self._seconds)

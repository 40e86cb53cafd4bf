"""The stored state of a limiter: windows, requests in flight, tickets, and the pause after a refusal."""

from __future__ import annotations

from collections.abc import Iterator
from heapq import merge
from itertools import pairwise
from math import floor

import attrs

from thanx_async.limiter._protocol import Lane

_GRAINS = 500
_LATEST = 1e11
_AHEAD = 7200.0
_MOST_MARGIN = 10.0
_MOST_COUNTED = 2**53


@attrs.define
class Window:
    """The times at which Thanx may have counted requests, within the last ``seconds`` seconds.

    Times are rounded up to a 500th of the window. So the state stays small however high the limit is, and
    errors are on the safe side.
    """

    seconds: float
    buckets: list[tuple[int, int]] = attrs.field(factory=list)
    total: int = 0

    def is_sound(self, latest: float) -> bool:
        """Whether the buckets are in order, end by ``latest`` plus one window, and add up to the total."""
        if not 0 < self.seconds < _LATEST:
            return False
        numbers = [bucket for bucket, _ in self.buckets]
        return (
            all(earlier < later for earlier, later in pairwise(numbers))
            and all(count > 0 for _, count in self.buckets)
            and sum(count for _, count in self.buckets) == self.total
            and (not numbers or self._end(numbers[-1]) <= latest + self.seconds)
        )

    def add(self, moment: float) -> None:
        """Log a request."""
        bucket = floor(moment * _GRAINS / self.seconds)
        index = len(self.buckets)
        while index and self.buckets[index - 1][0] > bucket:
            index -= 1
        if index and self.buckets[index - 1][0] == bucket:
            self.buckets[index - 1] = bucket, self.buckets[index - 1][1] + 1
        else:
            self.buckets.insert(index, (bucket, 1))
        self.total += 1

    def forget(self, before: float) -> None:
        """Drop requests up to this time."""
        while self.buckets and self._end(self.buckets[0][0]) <= before:
            self.total -= self.buckets.pop(0)[1]

    def newest(self, number: int, flying: list[float]) -> float | None:
        """The ``number``-th newest time, including the sorted ``flying`` ones; None if there are fewer."""
        older = self.total + len(flying) - number
        if older < 0:
            return None
        for moment, count in merge(self.moments(), ((moment, 1) for moment in flying)):
            older -= count
            if older < 0:
                return moment
        return None

    def moments(self) -> Iterator[tuple[float, int]]:
        """The times in order, each with its number of requests."""
        return ((self._end(bucket), count) for bucket, count in self.buckets)

    def _end(self, bucket: int) -> float:
        return (bucket + 1) * self.seconds / _GRAINS


@attrs.frozen
class Booking:
    """A request that was sent. Without an answer, it counts as answered at ``lease``."""

    token: int
    sent: float
    lease: float


@attrs.define
class Ticket:
    """The turn of one lane of a waiting queue, ``owner``, which asks again at ``wake``.

    Tickets are ordered by ``since``. It defaults to the past, for tickets of earlier versions.
    """

    owner: str
    wake: float
    lane: Lane = Lane.ISSUE
    since: float = 0.0


@attrs.define
class Refusal:
    """The pause after a 429 or an outage.

    Attributes:
        count: the number of 429 answers so far.
        outage: whether the last failure was a 5xx or no answer.
        away_since: when the outage began.
        failures: the number of failures in a row; 0 if there is no pause.
        until: when the next probe may be sent.
        probe: the token of the last probe.
        resumed: when the request was sent that ended the last pause.
    """

    count: int = 0
    outage: bool = False
    away_since: float | None = None
    failures: int = 0
    until: float | None = None
    probe: int | None = None
    resumed: float | None = None


@attrs.define
class LimiterState:
    """The state of a limiter. All times are in seconds, on the clock of the store.

    Attributes:
        clock: the latest time that any process has seen.
        tokens: the token of the last booking.
        last: when the last request was sent.
        sent: when the last request of each lane was sent, by the lane's value.
        flights: the requests in flight, by token.
        windows: the log of requests for each window.
        least_round_trip: the shortest round trip so far, in seconds.
        round_trips: the number of round trips so far.
        margin: the safety margin learned from 429s, as a fraction of the shortest window.
        trust: the part of a round trip beyond the least that may pass before Thanx counts the request, from 0
            to 1, which is the safest.
        adjusted: when ``margin`` or ``trust`` was last made safer.
        tickets: the queues that wait for their turn.
        passed_over: the number of slots in a row that went to other requests while polls were waiting.
        bulk_passed_over: the number of slots that went to interactive requests while bulk requests were
            waiting, since the last one of those.
        refusal: the pause after a 429 or an outage.
    """

    clock: float = 0.0
    tokens: int = 0
    last: float | None = None
    sent: dict[str, float] = attrs.field(factory=dict)
    flights: dict[int, Booking] = attrs.field(factory=dict)
    windows: list[Window] = attrs.field(factory=list)
    least_round_trip: float | None = None
    round_trips: int = 0
    margin: float = 0.0
    trust: float = 1.0
    adjusted: float | None = None
    tickets: list[Ticket] = attrs.field(factory=list)
    passed_over: int = 0
    bulk_passed_over: int = 0
    refusal: Refusal = attrs.field(factory=Refusal)

    def window(self, seconds: float) -> Window:
        """The log of a window. A new window starts with the times of the longest one, and is not stored."""
        for window in self.windows:
            if window.seconds == seconds:
                return window
        new = Window(seconds)
        longest = max(self.windows, key=lambda window: window.seconds, default=new)
        for moment, count in longest.moments():
            for _ in range(count):
                new.add(moment)
        return new

    def is_sound(self) -> bool:
        """Whether the values are possible. A damaged state must not decide when requests are sent."""
        latest = self.clock + _AHEAD
        pause = self.refusal
        moments = [self.last, self.adjusted, pause.until, pause.resumed, pause.away_since]
        counts = [
            self.tokens,
            self.round_trips,
            self.passed_over,
            self.bulk_passed_over,
            pause.count,
            pause.failures,
            pause.probe or 0,
        ]
        moments += self.sent.values()
        moments += [time for flight in self.flights.values() for time in (flight.sent, flight.lease)]
        return (
            0 <= self.clock < _LATEST
            and all(moment is None or 0 <= moment <= latest for moment in moments)
            and all(
                0 <= moment < _LATEST for ticket in self.tickets for moment in (ticket.wake, ticket.since)
            )
            and all(token == flight.token <= self.tokens for token, flight in self.flights.items())
            and all(window.is_sound(latest) for window in self.windows)
            and 0 <= self.trust <= 1
            and 0 <= self.margin <= _MOST_MARGIN
            and all(0 <= count < _MOST_COUNTED for count in counts)
            and (self.least_round_trip is None or 0 <= self.least_round_trip <= _AHEAD)
        )

    def unlearn(self) -> None:
        """Reset the measurements and the pause, after a long time without requests."""
        self.margin, self.trust, self.adjusted = 0.0, 1.0, None
        self.refusal = Refusal(self.refusal.count)

    def keep_window(self, seconds: float) -> None:
        """Store the log of a window from now on."""
        if all(window.seconds != seconds for window in self.windows):
            self.windows.append(self.window(seconds))

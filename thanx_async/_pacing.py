"""When the next request may be sent: a pure decision over a small state, without clock or I/O.

The server counts a request at some moment between its sending and its answer. A slot of the shortest window
is therefore free again only one window after the latest moment at which the request can have been counted:
its *arrival bound*. Longer windows are counted from the answers.
"""

from __future__ import annotations

import random
from bisect import insort
from collections import deque
from collections.abc import Sequence
from email.utils import parsedate_to_datetime

import attrs

from thanx_async.errors import ConfigurationError

_SLACK = 0.005
_ENOUGH_ROUND_TRIPS = 20
_MARGIN_STEP = 0.05
_MOST_MARGIN = 1.5
_DECAY_AFTER = 300
_LONGEST_HOLD = 60.0
_AFTER_BOUNDARY = 0.5


@attrs.frozen
class RateLimit:
    """At most ``requests`` in any ``seconds``."""

    requests: int = attrs.field()
    seconds: float = attrs.field()

    @requests.validator
    def _check_requests(self, _: object, value: int) -> None:
        if value < 1:
            raise ConfigurationError(f"RateLimit.requests must be at least 1, not {value}")

    @seconds.validator
    def _check_seconds(self, _: object, value: float) -> None:
        if not 0 < value < float("inf"):
            raise ConfigurationError(f"RateLimit.seconds must be positive, not {value}")


class Pacing:
    """The state of one credential's limits. Times are seconds on one clock, given by the caller."""

    def __init__(self, limits: Sequence[RateLimit], *, strict: bool) -> None:
        self.limits = tuple(sorted(limits, key=lambda limit: limit.seconds))
        if not self.limits:
            raise ConfigurationError("limits is empty: give at least one RateLimit")
        self._trust = 1.0
        self._adaptive = not strict
        self._margin = 0.0
        self._in_flight: dict[int, float] = {}
        self._bounds: list[float] = []
        self._answers: list[float] = []
        self._round_trips: deque[float] = deque(maxlen=100)
        self._least_round_trip = float("inf")
        self._sends = 0
        self._successes = 0
        self._last = float("-inf")
        self._adjusted = float("-inf")
        self.refusal = Refusal(self.limits[-1].seconds)

    @property
    def latency(self) -> float | None:
        """The 90th percentile of the last hundred round trips, None before the first."""
        if not self._round_trips:
            return None
        return sorted(self._round_trips)[int(0.9 * (len(self._round_trips) - 1))]

    def due(self, now: float) -> tuple[float, str]:
        """When the next request may be sent, and what it waits for; infinity: not before an answer."""
        if self.refusal.is_probing:
            return float("inf"), "the answer to a probe after a refusal"
        shortest, *longer = self.limits
        spacing = shortest.seconds / shortest.requests
        waits = [
            (self._last + spacing * (1 + self._margin), "even spacing"),
            (self.refusal.until, "a refusal (429)"),
            (self._free_again(shortest, now), _phrase(shortest)),
        ]
        waits += [(self._refilled(limit), _phrase(limit)) for limit in longer]
        return max(waits)

    def book(self, now: float) -> int:
        """Count a request that is sent now; returns its token."""
        self._sends += 1
        self._in_flight[self._sends] = now
        self._last = now
        self.refusal.sent(self._sends)
        return self._sends

    def answered(self, token: int, now: float, status: int, retry_after: str, date: str) -> None:
        """Learn from an answer. The two texts are headers, empty if there were none."""
        sent = self._in_flight[token]
        round_trip = now - sent
        self._round_trips.append(round_trip)
        self._least_round_trip = min(self._least_round_trip, round_trip)
        if status == 429:
            if sent > self._adjusted:
                self._adjusted = now
                self._be_careful()
            self.refusal.refused(token, sent, now, retry_after, date)
        else:
            self.refusal.passed(token)
            self._relax()

    def release(self, token: int, now: float) -> None:
        """The request is over, answered or not."""
        sent = self._in_flight.pop(token)
        insort(self._bounds, self._bound(sent, now))
        self._answers.append(now)
        _trim(self._bounds, self.limits[0].requests)
        _trim(self._answers, max(limit.requests for limit in self.limits))
        self.refusal.ended(token)

    def used(self, limit: RateLimit, now: float) -> int:
        """Requests that may still count within a window of ``limit``."""
        recent = sum(1 for moment in self._answers[-limit.requests :] if moment > now - limit.seconds)
        return min(limit.requests, recent + len(self._in_flight))

    def _base(self) -> float:
        enough = len(self._round_trips) >= _ENOUGH_ROUND_TRIPS
        return 0.9 * self._least_round_trip if enough else 0.0

    def _bound(self, sent: float, now: float) -> float:
        return sent + self._trust * max(0.0, now - sent - self._base()) + _SLACK

    def _free_again(self, limit: RateLimit, now: float) -> float:
        """One window after the ``requests``-th newest arrival bound, those in flight included."""
        flying = sorted((self._bound(sent, now) for sent in self._in_flight.values()), reverse=True)
        newest = float("-inf")
        for taken in range(min(len(flying), limit.requests) + 1):
            rest = limit.requests - taken
            if rest > len(self._bounds):
                continue
            candidates = [flying[taken - 1]] if taken else []
            candidates += [self._bounds[-rest]] if rest else []
            newest = max(newest, min(candidates))
        return newest + limit.seconds * (1 + self._margin)

    def _refilled(self, limit: RateLimit) -> float:
        left = limit.requests - len(self._in_flight)
        if left < 1:
            return float("inf")
        if left > len(self._answers):
            return float("-inf")
        return self._answers[-left] + limit.seconds - self._base() + _SLACK

    def _be_careful(self) -> None:
        self._successes = 0
        if self._trust < 0.8:
            self._trust = min(1.0, self._trust + 0.2)
        else:
            self._margin = min(_MOST_MARGIN, self._margin + _MARGIN_STEP)

    def _relax(self) -> None:
        self._successes += 1
        if self._successes % _DECAY_AFTER:
            return
        if self._margin > 0:
            self._margin = max(0.0, self._margin - _MARGIN_STEP)
        elif self._adaptive:
            self._trust = max(0.0, self._trust - 0.1)


class Refusal:
    """What follows a 429: everybody pauses, one request probes, and the pause grows while probes fail.

    Args:
        boundary: seconds of the longest window. A counter that is aligned to the server's clock starts anew
            at its multiples, so that from the third failure on a probe is made there as well.
    """

    def __init__(self, boundary: float) -> None:
        self.count = 0
        self.until = float("-inf")
        self._boundary = boundary
        self._since: float | None = None
        self._failures = 0
        self._probe: int | None = None

    @property
    def is_probing(self) -> bool:
        return self._probe is not None

    def sent(self, token: int) -> None:
        if self._since is not None:
            self._probe = token

    def refused(self, token: int, sent: float, now: float, retry_after: str, date: str) -> None:
        self.count += 1
        if self._since is not None and token != self._probe:
            return  # sent before the pause began: it says nothing new
        self._since = self._since or sent
        self._failures += 1
        hold = min(_LONGEST_HOLD, 2.0 ** (self._failures - 1))
        if self._failures > 1:
            hold *= random.uniform(0.9, 1.1)  # noqa: S311 - only spreads clients
        self.until = now + hold
        if (asked := _retry_after(retry_after, date)) is not None:
            self.until = now + asked
        elif self._failures >= 3 and (server := _timestamp(date)) is not None:
            to_boundary = self._boundary - server % self._boundary + _AFTER_BOUNDARY
            self.until = min(self.until, now + to_boundary)

    def passed(self, token: int) -> None:
        if token == self._probe:
            self._since, self._failures, self.until = None, 0, float("-inf")

    def ended(self, token: int) -> None:
        if token == self._probe:
            self._probe = None


def least_duration(requests: int, limits: Sequence[RateLimit]) -> float:
    """Seconds that a number of requests takes at least: the limit that holds longest decides."""
    return max(
        (((requests - 1) // limit.requests) * limit.seconds for limit in limits if requests), default=0.0
    )


def _phrase(limit: RateLimit) -> str:
    return f"the limit of {limit.requests:,} requests in {limit.seconds:g} s"


def _trim(values: list[float], keep: int) -> None:
    if len(values) > 2 * keep:
        del values[:-keep]


def _timestamp(date: str) -> float | None:
    try:
        return parsedate_to_datetime(date).timestamp()
    except ValueError:
        return None


def _retry_after(text: str, date: str) -> float | None:
    """Seconds that a Retry-After header asks for: a number of them, or a moment of the server's clock."""
    if text.isascii() and text.isdigit():
        return float(text)
    moment, server = _timestamp(text), _timestamp(date)
    return None if moment is None or server is None else max(0.0, moment - server)

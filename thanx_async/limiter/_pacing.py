"""Decides when the next request may be sent, from the limiter's state and the time alone.

The server counts a request at some moment between the sending and the answer. The *arrival bound* is the
latest such moment. A request takes up a place in a window until one window after its arrival bound. The
caller passes all times, in seconds on one clock.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import inf

import attrs

from thanx_async._core import checks
from thanx_async.limiter import _refusal
from thanx_async.limiter._limits import RateLimit, checked_limits, trickle_interval, without_implied
from thanx_async.limiter._protocol import Lane
from thanx_async.limiter._refusal import LimiterAnswer
from thanx_async.limiter._reserve import DEFAULT_RESERVE, Reserve, least_often
from thanx_async.limiter._state import Booking, LimiterState
from thanx_async.limiter._turns import GRACE, Decision, count, tickets_of, turn

LEASE = 60.0
"""After so many seconds without an answer, a request counts as answered."""

_SLACK = 0.005
_HALF_TRUSTED = 20
_MARGIN_STEP = 0.05
_MOST_MARGIN = 1.5
_TRUST_STEP = 0.1
_MARGIN_AFTER = 300
_TRUST_AFTER = 50
_UNLEARNT = 900.0
_LOOK_AGAIN = 0.25
_PROBE = "the answer to a probe after a refusal", "the answer to a probe in an outage"
_PAUSE = "a refusal (429)", "the end of an outage"


@attrs.frozen
class Admission:
    """The result of asking for a slot: a booking, or else the time to ask again and the reason. In either
    case ``lane`` is the lane that it is for.
    """

    booking: Booking | None
    due: float
    reason: str
    lane: Lane


class Pacing:
    """Applies the limits to a `LimiterState`, which holds everything that changes.

    Args:
        limits: all limits that apply. Of those that no other one implies, the shortest sets the pace.
        strict: assume that Thanx counts each request as late as possible.
        reserve: the share of each window but the shortest that only interactive requests may use.
        draw: gives random numbers from 0 to 1.
    """

    def __init__(
        self,
        limits: Sequence[RateLimit],
        *,
        strict: bool,
        reserve: float = DEFAULT_RESERVE,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.limits: tuple[RateLimit, ...] = checked_limits(limits)
        checks.flags(strict=strict)
        self._reserve = Reserve(reserve)
        self._adaptive = not strict
        self._draw = draw
        self._kept = without_implied(self.limits)
        self._pace = self._kept[0]

    def reserved(self, state: LimiterState, limit: RateLimit, now: float) -> int:
        """How many requests of ``limit`` only interactive requests may use now."""
        return self._reserve.of(limit, state, now) if limit.seconds > self._pace.seconds else 0

    def decide(self, state: LimiterState, now: float) -> dict[Lane, Decision]:
        """When the next request of each lane may be sent. The state is not changed."""
        refusal = state.refusal
        probe = None if refusal.probe is None else state.flights.get(refusal.probe)
        if probe and now < probe.lease:
            due = min(probe.lease, now + _LOOK_AGAIN)
            return dict.fromkeys(Lane, Decision(due, _PROBE[refusal.outage]))
        waits = [(-inf, "nothing")]
        if state.last is not None:
            waits.append((state.last + self._spacing(state), "even spacing"))
        if refusal.until is not None:
            waits.append((refusal.until, _PAUSE[refusal.outage]))
        waits_of_bulk: list[tuple[float, str]] = []
        reserved: dict[RateLimit, int] = {}
        for limit in self._kept:
            flying = self._flying(state, limit, now)
            waits += self._wait_for(state, limit, 0, flying)
            if size := self.reserved(state, limit, now):
                reserved[limit] = size
                waits_of_bulk += self._wait_for(state, limit, size, flying)
        free = Decision(*max(waits))
        if not waits_of_bulk:
            return dict.fromkeys(Lane, free)
        held = Decision(*max(waits + waits_of_bulk))
        return {Lane.INTERACTIVE: free, **_behind_reserve(state, now, free, held, reserved)}

    def _flying(self, state: LimiterState, limit: RateLimit, now: float) -> list[float]:
        trust = self._trust(limit.seconds, state)
        return sorted(
            self._bound(state, flight, min(now, flight.lease), trust) for flight in state.flights.values()
        )

    def _wait_for(
        self, state: LimiterState, limit: RateLimit, reserved: int, flying: list[float]
    ) -> list[tuple[float, str]]:
        moment = state.window(limit.seconds).newest(limit.requests - reserved, flying)
        if moment is None:
            return []
        reason = f"the limit of {limit.requests:,} requests in {limit.seconds:g} s"
        if reserved:
            reason += f", of which {reserved:,} are reserved"
        return [(moment + self._length(limit.seconds, state), reason)]

    def admit(self, state: LimiterState, owner: str, now: float, lanes: Iterable[Lane]) -> Admission:
        """Give the owner a slot for one of its lanes, if it is that lane's turn and the limits allow a
        request. Otherwise the lanes get tickets.

        Args:
            state: the state to change.
            owner: the queue that asks.
            now: the time.
            lanes: the lanes in which requests of the owner wait, at least one.
        """
        self._pass_time(state, now)
        mine = tickets_of(state, owner, now, dict.fromkeys(lanes, now))
        dues = self.decide(state, now)
        waits = [turn(state, ticket, now, dues, self._spacing(state)) for ticket in mine]
        for ticket, wait in zip(mine, waits, strict=True):
            if wait.due <= now:
                state.tickets.remove(ticket)
                others = {other.lane for other in state.tickets if dues[other.lane].due <= now}
                count(state, ticket.lane, others)
                return Admission(self._book(state, now, ticket.lane), now, wait.reason, ticket.lane)
        first, wait = min(zip(mine, waits, strict=True), key=lambda pair: pair[1].due)
        for ticket in mine:
            ticket.wake = wait.due
        return Admission(None, wait.due, wait.reason, first.lane)

    def approach(self, state: LimiterState, owner: str, now: float, since: float) -> float:
        """When the owner should cut its next micro-batch. Until then it has an interactive ticket.

        Micro-batches keep a distance from the last interactive request of any owner, so that many owners
        together do not spend a limit that they then all wait for.

        Args:
            state: the state to change.
            owner: the queue that asks.
            now: the time.
            since: when the oldest guest of the batch came.
        """
        self._pass_time(state, now)
        (mine,) = tickets_of(state, owner, now, {Lane.INTERACTIVE: since})
        mine.since = min(mine.since, since)
        interval = trickle_interval(
            (limit, limit.requests - self.used(state, limit, now)) for limit in self.limits
        )
        last = state.sent.get(Lane.INTERACTIVE.value, -inf)
        dues = self.decide(state, now)
        due = max(dues[Lane.INTERACTIVE].due, last + interval)
        dues[Lane.INTERACTIVE] = Decision(due, dues[Lane.INTERACTIVE].reason)
        # The interval changes, so that an owner with an older guest may mean to ask a little later.
        mine.wake = turn(state, mine, now, dues, self._spacing(state), later=interval).due
        return mine.wake

    def withdraw(self, state: LimiterState, owner: str, lane: Lane | None, booking: Booking | None) -> None:
        """Remove the owner's ticket for a lane, and a booking that was not used, if they are there."""
        state.tickets = [ticket for ticket in state.tickets if (ticket.owner, ticket.lane) != (owner, lane)]
        if booking and state.flights.get(booking.token) == booking:  # its token may be another's by now
            del state.flights[booking.token]

    def settle(
        self,
        state: LimiterState,
        booking: Booking,
        now: float,
        answer: LimiterAnswer | None,
        *,
        failed: bool = False,
    ) -> None:
        """Log a request that has ended, and learn from its answer, or from its failure without an answer."""
        self._pass_time(state, now)
        state.flights.pop(booking.token, None)
        self._log(state, booking, answer.time if answer else now)
        if answer is not None:
            round_trip = answer.time - booking.sent
            state.round_trips += 1
            known = state.least_round_trip
            state.least_round_trip = round_trip if known is None else min(known, round_trip)
            self._learn(state, booking, answer)
        elif failed:
            _refusal.unanswered(state.refusal, booking, now, None, self._draw())

    def returns(self, state: LimiterState, limit: RateLimit, now: float) -> tuple[tuple[float, int], ...]:
        """After how many seconds requests that Thanx may still count leave the window, and how many then."""
        trust = self._trust(limit.seconds, state)
        counted = [*state.window(limit.seconds).moments()]
        counted += [
            (self._bound(state, flight, min(now, flight.lease), trust), 1)
            for flight in state.flights.values()
        ]
        ends = ((moment + limit.seconds - now, count) for moment, count in sorted(counted))
        return tuple((seconds, count) for seconds, count in ends if seconds > 0)

    def used(self, state: LimiterState, limit: RateLimit, now: float) -> int:
        """How many requests Thanx may still count within the window of ``limit``."""
        return min(limit.requests, sum(count for _, count in self.returns(state, limit, now)))

    def issuing_ago(self, state: LimiterState, now: float) -> float | None:
        """Seconds since anybody sent a request other than a poll; 0 while one waits for its turn."""
        if any(ticket.lane is not Lane.POLL and ticket.wake + GRACE >= now for ticket in state.tickets):
            return 0.0
        sent = [moment for lane, moment in state.sent.items() if lane != Lane.POLL.value]
        return max(0.0, now - max(sent)) if sent else None

    def _spacing(self, state: LimiterState) -> float:
        return self._pace.seconds / self._pace.requests * (1 + state.margin)

    def _length(self, seconds: float, state: LimiterState) -> float:
        return seconds * (1 + state.margin) if seconds == self._pace.seconds else seconds

    def _trust(self, seconds: float, state: LimiterState) -> float:
        return state.trust if self._adaptive and seconds == self._pace.seconds else 1.0

    def _bound(self, state: LimiterState, booking: Booking, ended: float, trust: float) -> float:
        # The way back of this answer and the way of a later request take the least round trip together.
        # With few samples the minimum may be too high, so trust in it grows with their number.
        known = state.round_trips / (state.round_trips + _HALF_TRUSTED)
        base = 0.9 * known * (state.least_round_trip or 0.0)
        return booking.sent + trust * max(0.0, ended - booking.sent - base) + _SLACK

    def _book(self, state: LimiterState, now: float, lane: Lane) -> Booking:
        state.tokens += 1
        booking = Booking(state.tokens, now, now + LEASE)
        state.flights[booking.token] = booking
        state.last = state.sent[lane.value] = now
        if state.refusal.failures:
            state.refusal.probe = booking.token
        return booking

    def _pass_time(self, state: LimiterState, now: float) -> None:
        """Log requests with an expired lease, and forget requests that no longer count."""
        state.clock = max(state.clock, now)
        if (
            state.last is not None
            and now > max(state.last, state.refusal.until or now - _UNLEARNT) + _UNLEARNT
        ):
            state.unlearn()
        for limit in self.limits:
            state.keep_window(limit.seconds)
        for booking in [flight for flight in state.flights.values() if flight.lease <= now]:
            del state.flights[booking.token]
            self._log(state, booking, booking.lease)
        for window in state.windows:
            window.forget(now - self._length(window.seconds, state))

    def _log(self, state: LimiterState, booking: Booking, ended: float) -> None:
        for window in state.windows:
            window.add(self._bound(state, booking, ended, self._trust(window.seconds, state)))

    def _learn(self, state: LimiterState, booking: Booking, answer: LimiterAnswer) -> None:
        if answer.status >= 500:
            _refusal.unanswered(state.refusal, booking, answer.time, answer, self._draw())
            return
        if answer.status != 429:
            _refusal.passed(state.refusal, booking)
            self._relax(state)
            return
        if state.adjusted is None or booking.sent > state.adjusted:
            state.adjusted = answer.time
            self._be_careful(state)
        boundary = self.limits[-1].seconds
        _refusal.refused(state.refusal, booking, answer, boundary, self._draw())

    def _be_careful(self, state: LimiterState) -> None:
        if state.trust < 0.8:
            state.trust = min(1.0, state.trust + 2 * _TRUST_STEP)
        else:
            state.margin = min(_MOST_MARGIN, state.margin + _MARGIN_STEP)

    def _relax(self, state: LimiterState) -> None:
        if state.margin > 0:
            state.margin = max(0.0, state.margin - _MARGIN_STEP / _MARGIN_AFTER)
        elif self._adaptive:
            state.trust = max(0.0, state.trust - _TRUST_STEP / _TRUST_AFTER)


def _behind_reserve(
    state: LimiterState, now: float, free: Decision, held: Decision, reserved: Mapping[RateLimit, int]
) -> dict[Lane, Decision]:
    """When the lanes may send that must leave the reserve, except for a few requests."""
    decisions = {Lane.ISSUE: held, Lane.POLL: held}
    if held.due > max(free.due, now):
        for lane in decisions:
            gap = max(least_often(lane, limit, size) for limit, size in reserved.items())
            due = max(free.due, state.sent.get(lane.value, -inf) + gap)
            decisions[lane] = Decision(min(due, held.due), held.reason)
    return decisions

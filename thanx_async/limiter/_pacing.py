"""Decides when the next request may be sent, from the limiter's state and the time alone.

The server counts a request at some moment between the sending and the answer. The *arrival bound* is the
latest such moment. A request takes up a place in a window until one window after its arrival bound. The
caller passes all times, in seconds on one clock.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from math import inf

import attrs

from thanx_async._core import checks
from thanx_async.limiter import _refusal
from thanx_async.limiter._limits import RateLimit, checked_limits, without_implied
from thanx_async.limiter._refusal import LimiterAnswer
from thanx_async.limiter._state import Booking, LimiterState, Ticket

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
_GRACE = 1.0
POLL_TURN = 9
"""So many slots in a row may pass over a waiting poll."""

_PROBE = "the answer to a probe after a refusal", "the answer to a probe in an outage"
_PAUSE = "a refusal (429)", "the end of an outage"


@attrs.frozen
class Decision:
    """The time at which the next request may be sent, and the reason for the wait."""

    due: float
    reason: str


@attrs.frozen
class Admission:
    """The result of asking for a slot: a booking, or else the time to ask again and the reason."""

    booking: Booking | None
    due: float
    reason: str


class Pacing:
    """Applies the limits to a `LimiterState`, which holds everything that changes.

    Args:
        limits: all limits that apply. Of those that no other one implies, the shortest sets the pace.
        strict: assume that Thanx counts each request as late as possible.
        draw: gives random numbers from 0 to 1.
    """

    def __init__(
        self, limits: Sequence[RateLimit], *, strict: bool, draw: Callable[[], float] = random.random
    ) -> None:
        self.limits: tuple[RateLimit, ...] = checked_limits(limits)
        checks.flags(strict=strict)
        self._adaptive = not strict
        self._draw = draw
        self._kept = without_implied(self.limits)
        self._pace = self._kept[0]

    def decide(self, state: LimiterState, now: float) -> Decision:
        """When the next request may be sent. The state is not changed."""
        refusal = state.refusal
        probe = None if refusal.probe is None else state.flights.get(refusal.probe)
        if probe and now < probe.lease:
            return Decision(min(probe.lease, now + _LOOK_AGAIN), _PROBE[refusal.outage])
        waits = [(-inf, "nothing")]
        if state.last is not None:
            waits.append((state.last + self._spacing(state), "even spacing"))
        if refusal.until is not None:
            waits.append((refusal.until, _PAUSE[refusal.outage]))
        for limit in self._kept:
            trust = self._trust(limit.seconds, state)
            flying = sorted(
                self._bound(state, flight, min(now, flight.lease), trust) for flight in state.flights.values()
            )
            moment = state.window(limit.seconds).newest(limit.requests, flying)
            if moment is not None:
                waits.append(
                    (
                        moment + self._length(limit.seconds, state),
                        f"the limit of {limit.requests:,} requests in {limit.seconds:g} s",
                    )
                )
        return Decision(*max(waits))

    def admit(self, state: LimiterState, owner: str, now: float, *, polls: bool, others: bool) -> Admission:
        """Give the owner a slot if it is the owner's turn and the limits allow one, otherwise a ticket.

        Args:
            state: the state to change.
            owner: the queue that asks.
            now: the time.
            polls: whether the request is a poll.
            others: whether polls of this owner are waiting, too.
        """
        self._pass_time(state, now)
        state.tickets = [
            ticket for ticket in state.tickets if ticket.owner == owner or ticket.wake + _GRACE >= now
        ]
        mine = next((ticket for ticket in state.tickets if ticket.owner == owner), None)
        if mine is None:
            mine = Ticket(owner, polls, now)
            state.tickets.append(mine)
        mine.polls = polls
        decision = self.decide(state, now)
        due, reason = decision.due, decision.reason
        ahead = _ahead(state, mine, max(due, now))
        if due <= now and not ahead:
            state.tickets.remove(mine)
            waits = not polls and (others or any(ticket.polls for ticket in state.tickets))
            state.passed_over = state.passed_over + 1 if waits else 0
            return Admission(self._book(state, now), now, reason)
        if due > now:
            due += len(ahead) * self._spacing(state)
        else:
            due = min(now + len(ahead) * self._spacing(state), ahead[0].wake + _GRACE + _SLACK)
            reason = "other processes, whose turn it is"
        mine.wake = due
        return Admission(None, due, reason)

    def withdraw(self, state: LimiterState, owner: str | None, booking: Booking | None) -> None:
        """Remove the owner's ticket, and a booking that was not used, if they are there."""
        state.tickets = [ticket for ticket in state.tickets if ticket.owner != owner]
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

    def _book(self, state: LimiterState, now: float) -> Booking:
        state.tokens += 1
        booking = Booking(state.tokens, now, now + LEASE)
        state.flights[booking.token] = booking
        state.last = now
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


def polls_turn(state: LimiterState) -> bool:
    """Whether the next slot is for a waiting poll: polls get at least one slot in ten."""
    return state.passed_over >= POLL_TURN


def _ahead(state: LimiterState, mine: Ticket, now: float) -> list[Ticket]:
    """The tickets with a turn before ``mine`` whose owners ask again by ``now``."""
    issuing = [ticket for ticket in state.tickets if not ticket.polls]
    polling = [ticket for ticket in state.tickets if ticket.polls]
    first = 1 if polls_turn(state) else 0
    order = polling[:first] + issuing + polling[first:]
    return [ticket for ticket in order[: order.index(mine)] if ticket.wake <= now]

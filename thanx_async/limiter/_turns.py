"""Decides whose turn it is: lanes go by precedence, with a share for each, and the oldest of a lane first."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from math import inf

import attrs

from thanx_async.limiter._protocol import Lane
from thanx_async.limiter._state import LimiterState, Ticket

GRACE = 1.0
"""Seconds for which an owner may be late before its turn is over."""

_BULK_TURN = 3
_POLL_TURN = 9
_SLACK = 0.005


@attrs.frozen
class Decision:
    """The time at which the next request may be sent, and the reason for the wait."""

    due: float
    reason: str


def tickets_of(state: LimiterState, owner: str, now: float, lanes: Mapping[Lane, float]) -> list[Ticket]:
    """The owner's tickets for these lanes, each with the time since when it waits. Others that are out of
    date are dropped.
    """
    state.tickets = [
        ticket
        for ticket in state.tickets
        if ticket.wake + GRACE >= now or (ticket.owner == owner and ticket.lane in lanes)
    ]
    mine = {ticket.lane: ticket for ticket in state.tickets if ticket.owner == owner}
    for lane, since in lanes.items():
        if lane not in mine:
            mine[lane] = Ticket(owner, now, lane, since)
            state.tickets.append(mine[lane])
        mine[lane].wake = now
    return [mine[lane] for lane in lanes]


def turn(
    state: LimiterState,
    mine: Ticket,
    now: float,
    dues: Mapping[Lane, Decision],
    spacing: float,
    *,
    later: float = 0.0,
) -> Decision:
    """When it is this ticket's turn, as far as is known now.

    Args:
        state: the state.
        mine: the ticket.
        now: the time.
        dues: when the limits allow the next request of each lane.
        spacing: seconds between requests.
        later: tickets ahead count although their owners ask up to so many seconds later.
    """
    due, reason = dues[mine.lane].due, dues[mine.lane].reason
    start = max(due, now)
    ready = [
        ticket
        for ticket in state.tickets
        if ticket is mine or (ticket.wake <= start + later and dues[ticket.lane].due <= start)
    ]
    order = in_order(state, ready)
    ahead = order[: order.index(mine)]
    places: float = len(ahead)
    if all(ticket.lane is not mine.lane for ticket in ahead):
        places = min(places, _slots_until_share(state, mine.lane))
    if due > now or not ahead:
        return Decision(start + places * spacing, reason)
    again = min(now + max(1, places) * spacing, ahead[0].wake + GRACE + _SLACK)
    return Decision(again, "other processes, whose turn it is")


def in_order(state: LimiterState, tickets: Iterable[Ticket]) -> list[Ticket]:
    """The tickets in the order in which their owners may send.

    While others wait, one slot in ten is for polls. Of the rest, one in four is for bulk requests.
    """
    lines: dict[Lane, list[Ticket]] = {lane: [] for lane in Lane}
    for ticket in sorted(tickets, key=lambda ticket: ticket.since):
        lines[ticket.lane].append(ticket)
    first: list[Ticket] = []
    if state.passed_over >= _POLL_TURN:
        first = lines[Lane.POLL][:1]
    if not first and state.bulk_passed_over >= _BULK_TURN:
        first = lines[Lane.ISSUE][:1]
    return first + [ticket for line in lines.values() for ticket in line if ticket not in first]


def _slots_until_share(state: LimiterState, lane: Lane) -> float:
    """How many slots may go to other lanes before it is the turn of this one."""
    if lane is Lane.INTERACTIVE:
        return inf
    left = _BULK_TURN - state.bulk_passed_over if lane is Lane.ISSUE else _POLL_TURN - state.passed_over
    return max(0, left)


def count(state: LimiterState, lane: Lane, waiting: Collection[Lane]) -> None:
    """Count a slot that goes to a lane, while requests of the lanes ``waiting`` could be sent as well."""
    passes_poll = lane is not Lane.POLL and Lane.POLL in waiting
    state.passed_over = state.passed_over + 1 if passes_poll else 0
    if lane is Lane.ISSUE or Lane.ISSUE not in waiting:
        state.bulk_passed_over = 0
    elif lane is Lane.INTERACTIVE:
        state.bulk_passed_over += 1

"""Decides whose turn it is: lanes go by precedence, with a share for each, and the oldest of a lane first."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from thanx_async.limiter._protocol import Lane
from thanx_async.limiter._state import LimiterState, Ticket

_BULK_TURN = 3
_POLL_TURN = 9


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


def count(state: LimiterState, lane: Lane, waiting: Collection[Lane]) -> None:
    """Count a slot that goes to a lane, while requests of the lanes ``waiting`` could be sent as well."""
    passes_poll = lane is not Lane.POLL and Lane.POLL in waiting
    state.passed_over = state.passed_over + 1 if passes_poll else 0
    if lane is Lane.ISSUE or Lane.ISSUE not in waiting:
        state.bulk_passed_over = 0
    elif lane is Lane.INTERACTIVE:
        state.bulk_passed_over += 1

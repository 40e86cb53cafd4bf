"""The guests who wait to be sent, in order of arrival, and the callers who wait with them. No I/O."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from copy import copy
from itertools import islice

from thanx_async._core.errors import BatcherClosedError, ThanxError
from thanx_async.jobs import JobHandle

Reply = JobHandle | ThanxError
"""What callers are told. Errors are results here: a caller who has gone leaves none unretrieved."""

_SLICE = 50


class Guest:
    """One waiting guest; ``since`` is on the loop's clock."""

    __slots__ = ("callers", "since", "told", "value")

    def __init__(self, value: str, since: float) -> None:
        self.value = value
        self.since = since
        self.told = False
        self.callers: list[asyncio.Future[Reply]] = []


class WaitingRoom:
    """Holds at most ``most`` guests; further ones wait outside, and come in in order.

    Args:
        most: distinct guests inside.
        notable: numbers of guests inside at which ``changed`` is called as they are reached.
    """

    def __init__(self, most: int, *, notable: frozenset[int], changed: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._inside: dict[str, Guest] = {}
        self._outside: dict[str, Guest] = {}
        self._most = most
        self._notable = notable
        self._changed = changed

    def __len__(self) -> int:
        return len(self._inside)

    @property
    def outside(self) -> int:
        return len(self._outside)

    @property
    def oldest(self) -> float:
        """Since when the oldest guest waits; there must be one."""
        return next(iter(self._inside.values())).since

    async def stay(self, value: str) -> Reply:
        """Wait for the answer to the guest's batch. A caller who is cancelled before the guest was taken
        is forgotten, and so is the guest if nobody else asked for it."""
        guest = self._inside.get(value) or self._outside.get(value) or self._arrive(value)
        caller: asyncio.Future[Reply] = self._loop.create_future()
        guest.callers.append(caller)
        try:
            return await caller
        except asyncio.CancelledError:
            self._leave(guest, caller)
            raise

    def _arrive(self, value: str) -> Guest:
        guest = Guest(value, self._loop.time())
        if len(self._inside) < self._most:
            self._admit(guest)
        else:
            self._outside[value] = guest
        return guest

    def _admit(self, guest: Guest) -> None:
        self._inside[guest.value] = guest
        if len(self._inside) in self._notable:
            self._changed()

    def _fill(self) -> None:
        for value in list(islice(self._outside, self._most - len(self._inside))):
            self._admit(self._outside.pop(value))

    def _leave(self, guest: Guest, caller: asyncio.Future[Reply]) -> None:
        guest.callers.remove(caller)
        if guest.callers:
            return
        for guests in (self._inside, self._outside):
            if guests.get(guest.value) is guest:
                del guests[guest.value]
                self._fill()

    def take(self, count: int | None = None) -> list[Guest]:
        """Take out the guests inside who have waited longest, or all of them."""
        if count is None or count >= len(self._inside):
            guests = list(self._inside.values())
            self._inside.clear()
        else:
            guests = [self._inside.pop(value) for value in list(islice(self._inside, count))]
        self._fill()
        return guests


def tell(guests: Iterable[Guest], answer: Reply) -> None:
    for guest in guests:
        guest.told = True
        for caller in guest.callers:
            if not caller.done():
                caller.set_result(answer)


async def tell_in_slices(guests: list[Guest], answer: Reply) -> None:
    """Give way to the loop in between: thousands of callers go on at once otherwise."""
    left = iter(guests)
    try:
        while part := list(islice(left, _SLICE)):
            tell(part, answer)
            await asyncio.sleep(0)
    finally:
        tell(left, answer)


def closed(message: str, *, key: str | None = None) -> BatcherClosedError:
    """The error of who was left over; with the key of a batch that was sent, it is in doubt."""
    error = BatcherClosedError(message)
    error.in_doubt = key is not None
    error.idempotency_key = key
    return error


def twin(error: ThanxError) -> ThanxError:
    """The same error for one more caller: raised by thousands, one instance would gather their frames."""
    other = copy(error)
    if notes := getattr(error, "__notes__", None):
        other.__notes__ = [*notes]
    other.__cause__ = error.__cause__
    return other.with_traceback(error.__traceback__)

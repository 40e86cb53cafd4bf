"""The guests who wait to be sent, in order of arrival, and the callers who wait with them. No I/O."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from copy import copy
from itertools import islice

from thanx_async.errors import BatcherClosedError, ThanxError
from thanx_async.jobs import JobHandle

Answer = JobHandle | ThanxError
"""What callers are told. Errors are results here: a caller who has gone leaves none unretrieved."""

_SLICE = 250


class Guest:
    """One waiting guest; ``since`` is on the loop's clock."""

    __slots__ = ("callers", "since", "told", "value")

    def __init__(self, value: str, since: float) -> None:
        self.value = value
        self.since = since
        self.told = False
        self.callers: list[asyncio.Future[Answer]] = []


class WaitingRoom:
    """Holds at most ``most`` guests; further callers wait outside, in order.

    Args:
        most: distinct guests.
        notable: numbers of guests at which ``changed`` is called as they are reached.
    """

    def __init__(self, most: int, *, notable: frozenset[int], changed: Callable[[], None]) -> None:
        self.outside = 0
        self._loop = asyncio.get_running_loop()
        self._guests: dict[str, Guest] = {}
        self._places = asyncio.Semaphore(most)
        self._notable = notable
        self._changed = changed
        self._closed = False

    def __len__(self) -> int:
        return len(self._guests)

    @property
    def oldest(self) -> float:
        """Since when the oldest guest waits; there must be one."""
        return next(iter(self._guests.values())).since

    async def stay(self, value: str) -> Answer:
        """Wait for the answer to the guest's batch. A caller who is cancelled before the guest was taken
        is forgotten, and so is the guest if nobody else asked for it."""
        guest = self._guests.get(value) or await self._enter(value)
        caller: asyncio.Future[Answer] = self._loop.create_future()
        guest.callers.append(caller)
        try:
            return await caller
        except asyncio.CancelledError:
            self._leave(guest, caller)
            raise

    async def _enter(self, value: str) -> Guest:
        self.outside += 1
        try:
            await self._places.acquire()
        finally:
            self.outside -= 1
        guest = self._guests.get(value)
        if guest is None and not self._closed:
            guest = self._guests[value] = Guest(value, self._loop.time())
            if len(self._guests) in self._notable:
                self._changed()
            return guest
        self._places.release()
        self._changed()
        if guest is None:
            raise closed("the batcher closed before there was room for this guest, who was not sent")
        return guest

    def _leave(self, guest: Guest, caller: asyncio.Future[Answer]) -> None:
        guest.callers.remove(caller)
        if not guest.callers and self._guests.get(guest.value) is guest:
            del self._guests[guest.value]
            self._places.release()
            self._changed()

    def take(self, count: int | None = None) -> list[Guest]:
        """Take out the guests who have waited longest, or all."""
        values = list(islice(self._guests, count))
        guests = [self._guests.pop(value) for value in values]
        for _ in guests:
            self._places.release()
        return guests

    def close(self) -> None:
        """Let nobody in any more; those outside are told."""
        self._closed = True
        for _ in range(self.outside):
            self._places.release()


def tell(guests: Iterable[Guest], answer: Answer) -> None:
    for guest in guests:
        guest.told = True
        for caller in guest.callers:
            if not caller.done():
                caller.set_result(answer)


async def tell_in_slices(guests: list[Guest], answer: Answer) -> None:
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

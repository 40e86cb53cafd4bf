"""The queue behind `AsyncBatcher.add`: guests in order of arrival, and the callers who wait for each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from copy import copy
from itertools import islice

from thanx_async._core.errors import AddTimeoutError, BatcherClosedError, ThanxError
from thanx_async.jobs import JobHandle

Reply = JobHandle | ThanxError
"""What callers get. Errors are results: an exception in a cancelled caller's future would go unretrieved."""

_SLICE = 50


class Guest:
    """One waiting guest.

    Attributes:
        since: the time of arrival, in seconds on the loop's clock.
        adders: how many of the callers have added the guest; the others only ask for the outcome.
        key: the idempotency key of the guest's batch, once the batch is cut.
    """

    __slots__ = ("adders", "callers", "key", "since", "told", "value")

    def __init__(self, value: str, since: float) -> None:
        self.value = value
        self.since = since
        self.told = False
        self.adders = 0
        self.key: str | None = None
        self.callers: list[asyncio.Future[Reply]] = []


class WaitingRoom:
    """Admits up to ``capacity`` guests to be sent. Further guests overflow, and are admitted in order.

    Args:
        capacity: distinct guests admitted at once.
        thresholds: numbers of admitted guests.
        on_threshold: called when the number of admitted guests reaches a threshold.
    """

    def __init__(
        self, capacity: int, *, thresholds: frozenset[int], on_threshold: Callable[[], None]
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._admitted: dict[str, Guest] = {}
        self._overflow: dict[str, Guest] = {}
        self._capacity = capacity
        self._thresholds = thresholds
        self._on_threshold = on_threshold

    def __len__(self) -> int:
        return len(self._admitted)

    @property
    def overflow(self) -> int:
        """The number of guests who are not admitted yet."""
        return len(self._overflow)

    @property
    def oldest(self) -> float:
        """When the oldest admitted guest arrived. There must be one."""
        return next(iter(self._admitted.values())).since

    def find(self, value: str) -> Guest | None:
        """The guest with this value, if one is waiting."""
        return self._admitted.get(value) or self._overflow.get(value)

    async def wait(self, value: str, timeout: float | None) -> JobHandle:
        """Add a guest, or join the one with this value, and wait for the reply to the guest's batch.

        Raises:
            AddTimeoutError: there was none within ``timeout`` seconds.
            ThanxError: the reply.
        """
        guest, caller = self._join(value)
        del value  # see `AsyncBatcher.add`
        try:
            async with asyncio.timeout(timeout) as scope:
                return result_of(await caller)
        except ThanxError:
            raise
        except BaseException as error:
            answered = caller.done() and not caller.cancelled()
            fate, in_doubt = fate_of_reply(caller.result()) if answered else self._leave(guest, caller)
            if not (isinstance(error, TimeoutError) and scope.expired()):
                error.add_note(fate)
                raise
            if answered:
                return result_of(caller.result())
            raise AddTimeoutError(
                f"add() was not answered within {timeout:g} s: {fate}",
                in_doubt=in_doubt,
                idempotency_key=guest.key,
            ) from None

    def _join(self, value: str) -> tuple[Guest, asyncio.Future[Reply]]:
        guest = self.find(value) or self._arrive(value)
        guest.adders += 1
        return guest, self.watch(guest)

    def watch(self, guest: Guest) -> asyncio.Future[Reply]:
        """The reply to the guest's batch, for a caller who has not added the guest."""
        caller: asyncio.Future[Reply] = self._loop.create_future()
        guest.callers.append(caller)
        return caller

    def _arrive(self, value: str) -> Guest:
        guest = Guest(value, self._loop.time())
        if len(self._admitted) < self._capacity:
            self._admit(guest)
        else:
            self._overflow[value] = guest
        return guest

    def _admit(self, guest: Guest) -> None:
        self._admitted[guest.value] = guest
        if len(self._admitted) in self._thresholds:
            self._on_threshold()

    def _fill(self) -> None:
        for value in list(islice(self._overflow, self._capacity - len(self._admitted))):
            self._admit(self._overflow.pop(value))

    def _leave(self, guest: Guest, caller: asyncio.Future[Reply]) -> tuple[str, bool]:
        """A caller stops waiting. The guest is taken out, unless the guest is in a batch already, or another
        caller has added the same guest.

        Returns:
            What becomes of the guest, and whether the guest may get the reward.
        """
        guest.callers.remove(caller)
        guest.adders -= 1
        if guest.key is not None:
            return (
                "in doubt: the guest is on the way and may get the reward, in the batch with idempotency key"
                f" {guest.key}. Wait for outcome(), and do not add the guest again"
            ), True
        if guest.adders:
            return "another caller has added the same guest, who stays and may get the reward", True
        for queue in (self._admitted, self._overflow):
            if queue.get(guest.value) is guest:
                del queue[guest.value]
        self._fill()
        tell([guest], closed_error("the guest was taken out before being sent"))
        return "nothing was sent for this guest", False

    def take(self, count: int | None = None) -> list[Guest]:
        """Take out the ``count`` admitted guests who have waited longest, or all of them."""
        if count is None or count >= len(self._admitted):
            guests = list(self._admitted.values())
            self._admitted.clear()
        else:
            guests = [self._admitted.pop(value) for value in list(islice(self._admitted, count))]
        self._fill()
        return guests


def tell(guests: Iterable[Guest], reply: Reply) -> None:
    """Give the reply to every caller of these guests."""
    for guest in guests:
        guest.told = True
        for caller in guest.callers:
            if not caller.done():
                caller.set_result(reply)


async def tell_in_slices(guests: list[Guest], reply: Reply) -> None:
    """Like `tell`, but yield to the event loop now and then: thousands of callers would resume at once."""
    remaining = iter(guests)
    try:
        while part := list(islice(remaining, _SLICE)):
            tell(part, reply)
            await asyncio.sleep(0)
    finally:
        tell(remaining, reply)


def closed_error(message: str, *, key: str | None = None) -> BatcherClosedError:
    """The error for a guest without an answer. With the key of a batch that was sent, it is in doubt."""
    error = BatcherClosedError(message)
    error.in_doubt = key is not None
    error.idempotency_key = key
    return error


def clone(error: ThanxError) -> ThanxError:
    """A copy of the error for one caller: raised by thousands, one instance would collect their frames."""
    cloned = copy(error)
    if notes := getattr(error, "__notes__", None):
        cloned.__notes__ = [*notes]
    cloned.__cause__ = error.__cause__
    return cloned.with_traceback(error.__traceback__)


def result_of(reply: Reply) -> JobHandle:
    """The handle, or the error raised for one caller."""
    if isinstance(reply, ThanxError):
        raise clone(reply)
    return reply


def fate_of_reply(reply: Reply) -> tuple[str, bool]:
    """What a caller is told who stops waiting just as the reply comes."""
    if isinstance(reply, ThanxError):
        return f"the guest's batch ended in {type(reply).__name__}", reply.in_doubt
    return f"the guest was accepted, in job {reply.id}", True

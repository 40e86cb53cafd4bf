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


class Pending:
    """A reply that has not come yet, and the callers who wait for it.

    Attributes:
        key: the idempotency key of the batch, once it is cut.
        reply: the reply, once it has come.
    """

    __slots__ = ("callers", "key", "reply")

    def __init__(self, key: str | None = None) -> None:
        self.key = key
        self.reply: Reply | None = None
        self.callers: list[asyncio.Future[Reply]] = []

    def watch(self) -> asyncio.Future[Reply]:
        """Let one more caller wait."""
        caller: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self.callers.append(caller)
        return caller

    async def wait(self, timeout: float | None) -> Reply:
        """Wait for the reply, and return it.

        Raises:
            AddTimeoutError: it did not come within ``timeout`` seconds.
        """
        caller = self.watch()
        try:
            async with asyncio.timeout(timeout):
                return await caller
        except TimeoutError:
            raise AddTimeoutError(
                f"the guest's batch was not accepted after {timeout:g} s; it is still on the way",
                in_doubt=True,
                idempotency_key=self.key,
            ) from None
        finally:
            self.callers.remove(caller)


class Guest(Pending):
    """One guest who waits to be sent, or whose batch is on the way.

    Attributes:
        since: the time of arrival, in seconds on the loop's clock.
        adders: how many of the callers have added the guest; the others only ask for the outcome.
        asked_for: a caller of `add` has stopped waiting for the guest, or somebody asks for the outcome.
        noted: what a hook has noted of the callers who have added the guest.
    """

    __slots__ = ("adders", "asked_for", "noted", "since", "value")

    def __init__(self, value: str, since: float) -> None:
        super().__init__()
        self.value = value
        self.since = since
        self.adders = 0
        self.asked_for = False
        self.noted: tuple[object, ...] = ()


class WaitingRoom:
    """Admits up to ``capacity`` guests to be sent. Further guests overflow, and are admitted in order.

    Args:
        capacity: distinct guests admitted at once.
        note_caller: called in the context of each caller who adds a guest.
        thresholds: numbers of admitted guests.
        on_threshold: called when the number of admitted guests reaches a threshold.
    """

    def __init__(
        self,
        capacity: int,
        note_caller: Callable[[], object | None] | None = None,
        *,
        thresholds: frozenset[int],
        on_threshold: Callable[[], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._admitted: dict[str, Guest] = {}
        self._overflow: dict[str, Guest] = {}
        self._on_the_way: dict[str, Guest] = {}
        self._capacity = capacity
        self._thresholds = thresholds
        self._on_threshold = on_threshold
        self._note_caller = note_caller

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
        """The guest with this value, if one waits to be sent."""
        return self._admitted.get(value) or self._overflow.get(value)

    def find_pending(self, value: str) -> Guest | None:
        """The guest with this value who was added last, if no reply has come yet."""
        guest = self.find(value) or self._on_the_way.get(value)
        return None if guest is None or guest.reply is not None else guest

    async def wait(self, value: str, timeout: float | None) -> JobHandle:
        """Add a guest, or join the one with this value, and wait for the reply to the guest's batch.

        Raises:
            AddTimeoutError: there was none within ``timeout`` seconds.
            ThanxError: the reply.
        """
        guest, caller = self._join(value)
        del value  # see `AsyncBatcher.add`
        scope: asyncio.Timeout | None = None
        try:
            if timeout is None:  # most calls: the scope is a third of what a call costs
                return result_of(await caller)
            async with asyncio.timeout(timeout) as scope:
                return result_of(await caller)
        except ThanxError:
            raise
        except BaseException as error:
            reply = guest.reply
            fate, in_doubt = self._leave(guest, caller)
            if not (isinstance(error, TimeoutError) and scope is not None and scope.expired()):
                error.add_note(fate)
                raise
            if reply is not None:
                return result_of(reply)
            raise AddTimeoutError(
                f"add() was not answered within {timeout:g} s: {fate}",
                in_doubt=in_doubt,
                idempotency_key=guest.key,
            ) from None

    def _join(self, value: str) -> tuple[Guest, asyncio.Future[Reply]]:
        guest = self.find(value) or self._arrive(value)
        guest.adders += 1
        if self._note_caller is not None and (noted := self._note_caller()) is not None:
            guest.noted += (noted,)
        return guest, guest.watch()

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
        if guest.reply is not None:
            return fate_of_reply(guest.reply)
        guest.asked_for = True
        if guest.key is not None:
            return (
                "in doubt: the guest is on the way and may get the reward, in the batch with idempotency key"
                f" {guest.key}. Wait for outcome(), and do not add the guest again"
            ), True
        if guest.adders:
            return (
                "in doubt: another caller has added the same guest, who stays and may get the reward. Wait"
                " for outcome(), and do not add the guest again"
            ), True
        for queue in (self._admitted, self._overflow):
            if queue.get(guest.value) is guest:
                del queue[guest.value]
        self._fill()
        tell([guest], closed_error("the guest was taken out before being sent"))
        return "nothing was sent for this guest", False

    def take(self, count: int | None = None) -> list[Guest]:
        """Take out the ``count`` admitted guests who have waited longest, or all of them.

        They are on the way until `forget`.
        """
        if count is None or count >= len(self._admitted):
            guests = list(self._admitted.values())
            self._admitted.clear()
        else:
            guests = [self._admitted.pop(value) for value in list(islice(self._admitted, count))]
        for guest in guests:
            self._on_the_way[guest.value] = guest
        self._fill()
        return guests

    def forget(self, guests: Iterable[Guest]) -> None:
        """These guests have their reply."""
        for guest in guests:
            if self._on_the_way.get(guest.value) is guest:
                del self._on_the_way[guest.value]


def tell(pending: Iterable[Pending], reply: Reply) -> None:
    """Give the reply to every caller who waits for one of these."""
    for one in pending:
        one.reply = reply
        for caller in one.callers:
            if not caller.done():
                caller.set_result(reply)


async def tell_in_slices(guests: list[Guest], reply: Reply) -> None:
    """Like `tell`, but yield to the event loop now and then: thousands of callers would resume at once."""
    for guest in guests:
        guest.reply = reply
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
    if not isinstance(reply, ThanxError):
        return f"the guest was accepted, in job {reply.id}", True
    ending = f"the guest's batch ended in {type(reply).__name__}"
    if reply.in_doubt:
        return (
            f"in doubt: {ending}, and the guest may get the reward, in the batch with idempotency key"
            f" {reply.idempotency_key}. Do not add the guest again"
        ), True
    return f"{ending}: nothing was issued to this guest", False

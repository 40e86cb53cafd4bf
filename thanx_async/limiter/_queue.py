"""The queues in which requests wait for a slot, also during the pause after a 429 or an outage."""

from __future__ import annotations

import asyncio
import os
import threading
from collections import OrderedDict, deque
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, suppress
from types import TracebackType
from typing import NoReturn, Self
from uuid import uuid4
from weakref import WeakKeyDictionary

import attrs

from thanx_async._core import checks
from thanx_async._core.errors import TransportError
from thanx_async._core.escaping import get_logger
from thanx_async._core.tasks import RESOLUTION, changed
from thanx_async.limiter._limits import RateLimit
from thanx_async.limiter._overview import overview, wall_time
from thanx_async.limiter._pacing import Admission, Pacing
from thanx_async.limiter._protocol import Lane, LimiterStatus, Slot
from thanx_async.limiter._refusal import LimiterAnswer
from thanx_async.limiter._state import Booking, LimiterState
from thanx_async.limiter._steady import SteadyStore
from thanx_async.limiter._store import Store, StoreAwayError

_log = get_logger("thanx_async.limiter")

_LONG_WAIT = 5.0


class LoopQueues:
    """The queues of one process, one for each event loop that uses the limiter.

    Event loops take turns as processes do, so a loop that hangs or ends does not block the others. Threads
    share only this object and the store.
    """

    def __init__(self, pacing: Pacing, store: Store) -> None:
        self.pacing = pacing
        self.store = store
        self.steady = SteadyStore(store)
        self._lock = threading.Lock()
        self._queues: WeakKeyDictionary[asyncio.AbstractEventLoop, SlotQueue] = WeakKeyDictionary()
        self._round_trips: deque[float] = deque(maxlen=100)
        self._waiting_since: float | None = None
        self._announced = False

    def here(self) -> SlotQueue:
        """The queue of the running event loop."""
        loop = asyncio.get_running_loop()
        queue = self._queues.get(loop)
        if queue is None:
            with self._lock:
                queue = self._queues[loop] = SlotQueue(self)
        return queue

    def wake_others(self, queue: SlotQueue) -> None:
        """Wake the queues of other event loops, after a slot was given back."""
        if len(self._queues) == 1:
            return
        with self._lock:
            others = [(loop, other) for loop, other in self._queues.items() if other is not queue]
        for loop, other in others:
            if other.waiting:
                with suppress(RuntimeError):  # the loop is closed, so no request is waiting there
                    loop.call_soon_threadsafe(other.wake)

    async def refresh(self) -> None:
        """Read the state from the store."""
        await self.steady.transact(lambda _state, _now: None)

    def status(self) -> LimiterStatus:
        """The current state, as far as this process has seen it."""
        return self.store.look(self._status)

    def _status(self, state: LimiterState, now: float) -> LimiterStatus:
        shared = overview(self.pacing, state, now, self.steady.outage)
        with self._lock:
            waiting = sum(queue.waiting for queue in self._queues.values())
            issues = any(queue.has_issuing for queue in self._queues.values())
            round_trips = sorted(self._round_trips)
        return attrs.evolve(
            shared,
            waiting=waiting,
            latency=round_trips[int(0.9 * (len(round_trips) - 1))] if round_trips else None,
            issuing_ago=0.0 if issues else shared.issuing_ago,
        )

    def answered(self, seconds: float) -> None:
        """Remember the duration of a round trip, in seconds."""
        with self._lock:
            self._round_trips.append(seconds)

    def admitted(self) -> None:
        """Note that a request was admitted. The measured wait of the others starts over."""
        self._waiting_since = None
        self._announced = self._announced and bool(self.store.state.refusal.failures)

    def emptied(self) -> None:
        """Note that no request is waiting any more."""
        self._waiting_since = None

    def waits(self, wait: float, reason: str) -> None:
        """Note that a request waits. A long wait is logged once, and an outage of the store elsewhere."""
        if self.steady.outage:
            return
        now = self.store.now()
        with self._lock:
            since = self._waiting_since = now if self._waiting_since is None else self._waiting_since
            if now + wait - since <= _LONG_WAIT or self._announced:
                return
            self._announced = True
        until = wall_time(wait).astimezone()
        _log.warning("requests wait for %s, until about %s (%.0f s)", reason, f"{until:%H:%M:%S}", wait)


@attrs.define(eq=False)
class _Turn:
    """The place of a waiting request: what wakes it, and its booking once it has one."""

    change: asyncio.Event = attrs.field(factory=asyncio.Event)
    booking: Booking | None = None


class SlotQueue:
    """The queue of one event loop, with a line for each lane.

    Only the first request in the queue asks the store, on behalf of all lanes. So event loops and processes
    take turns, however many requests each of them has.
    """

    def __init__(self, queues: LoopQueues) -> None:
        self._shared = queues
        self._pacing = queues.pacing
        self._store = queues.store
        self._name = uuid4().hex
        self._unsure: Booking | None = None
        self._is_asking = False
        self._asked: set[Lane] = set()
        self._lines: dict[Lane, OrderedDict[QueuedSlot, _Turn]] = {lane: OrderedDict() for lane in Lane}

    @property
    def waiting(self) -> int:
        """The number of waiting requests."""
        return sum(map(len, self._lines.values()))

    @property
    def has_issuing(self) -> bool:
        """Whether a request other than a poll is waiting."""
        return any(line for lane, line in self._lines.items() if lane is not Lane.POLL)

    @property
    def _owner(self) -> str:
        """The owner of this queue's tickets; a forked process is another owner."""
        return f"{self._name} {os.getpid()}"

    async def acquire(self, slot: QueuedSlot) -> Booking:
        """Wait for the slot's turn and for the limits. A cancellation gives back the turn and any booking."""
        line = self._lines[slot.lane]
        turn = line[slot] = _Turn()
        try:
            while turn.booking is None:
                turn.change.clear()
                asks = self._first() is slot and not self._is_asking
                wait = await self._ask_for_all() if asks else None
                if wait is not None and self._first() is not slot:
                    wait = None
                    self.wake()
                if turn.booking is None:
                    await changed(turn.change, wait)
        except asyncio.CancelledError:
            line.pop(slot, None)
            if turn.booking or (slot.lane in self._asked and not line):
                await self._leave(None if line else slot.lane, turn.booking)
            raise
        finally:
            line.pop(slot, None)
            if not self.waiting:
                self._shared.emptied()
            self.wake()
        return turn.booking

    async def turn_in(self, waited: float) -> float:
        """See `PacedLimiter.turn_in`."""

        def approach(state: LimiterState, now: float) -> float:
            return self._pacing.approach(state, self._owner, now, max(0.0, now - waited)) - now

        try:
            return max(0.0, await self._shared.steady.transact(approach))
        except StoreAwayError:
            outage = self._shared.steady.outage
            return max(outage.retry - self._store.now(), RESOLUTION) if outage else RESOLUTION

    async def _ask_for_all(self) -> float:
        """Ask for a slot, and give it to the first request of its lane. Returns when to ask again, in seconds
        from now."""
        self._is_asking = True
        try:
            admission = await self._ask()
        finally:
            self._is_asking = False
        if admission.booking is None:
            wait = max(admission.due - self._store.now(), RESOLUTION)
            self._shared.waits(wait, admission.reason)
            return wait
        if line := self._lines[admission.lane]:
            _, turn = line.popitem(last=False)
            turn.booking = admission.booking
            turn.change.set()
        else:  # cancelled meanwhile
            await self._leave(None, admission.booking)
        return 0.0

    async def release(self, booking: Booking, answer: LimiterAnswer | None, *, failed: bool) -> None:
        """Record that the request has ended. If the store fails, its lease expires instead."""
        if answer is not None:
            self._shared.answered(answer.time - booking.sent)
        try:
            await self._shared.steady.record(
                lambda state, now: self._pacing.settle(state, booking, now, answer, failed=failed)
            )
        finally:
            self.wake()
            self._shared.wake_others(self)

    def wake(self) -> None:
        """Wake the first request in the queue."""
        if (first := self._first()) is not None:
            self._lines[first.lane][first].change.set()

    async def _ask(self) -> Admission:
        lanes = [lane for lane, line in self._lines.items() if line]
        self._asked.update(lanes)
        admissions: list[Admission] = []

        def ask(state: LimiterState, now: float) -> Admission:
            self._pacing.withdraw(state, self._owner, None, self._unsure)
            admissions.append(self._pacing.admit(state, self._owner, now, lanes))
            return admissions[-1]

        try:
            admission = await self._shared.steady.transact(ask)
        except asyncio.CancelledError:
            if admissions and admissions[-1].booking:
                await self._leave(None, admissions[-1].booking)
            raise
        except StoreAwayError:
            if admissions:
                self._unsure = admissions[-1].booking
            outage = self._shared.steady.outage
            due, reason = (outage.retry, outage.reason) if outage else (self._store.now(), "")
            return Admission(None, due, reason, lanes[0])
        self._unsure = None
        if admission.booking:
            self._asked.discard(admission.lane)
            self._shared.admitted()
        return admission

    async def _leave(self, lane: Lane | None, booking: Booking | None) -> None:
        """Give back this queue's ticket for a lane, and an unused booking."""
        unsure, self._unsure = self._unsure, None

        def leave(state: LimiterState, _: float) -> None:
            self._pacing.withdraw(state, self._owner, lane, booking)
            self._pacing.withdraw(state, self._owner, None, unsure)

        await self._shared.steady.record(leave)
        self._shared.wake_others(self)

    def _first(self) -> QueuedSlot | None:
        """The request that asks: the first of the first lane in which any waits."""
        return next((slot for line in self._lines.values() for slot in line), None)


class QueuedSlot:
    """The slot of one request: a place in the queue first, and then the permission to send."""

    __slots__ = ("_answer", "_booking", "_queue", "_queues", "lane")

    def __init__(self, queues: LoopQueues, lane: Lane) -> None:
        self._queues = queues
        self._queue: SlotQueue | None = None
        self._booking: Booking | None = None
        self._answer: LimiterAnswer | None = None
        self.lane = lane

    async def __aenter__(self) -> Self:
        self._queue = self._queues.here()
        self._booking = await self._queue.acquire(self)
        return self

    def answered(self, status: int, headers: Mapping[str, str]) -> None:
        """See `Slot.answered`."""
        self._answer = LimiterAnswer(
            self._queues.store.now(), status, headers.get("Retry-After", ""), headers.get("Date", "")
        )

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._booking is not None and self._queue is not None:
            booking, self._booking = self._booking, None
            failed = isinstance(error, TransportError | OSError)  # TimeoutError is an OSError
            await self._queue.release(booking, self._answer, failed=failed)


class QueuedLimiter:
    """The base class of the limiters: queues in front of a store."""

    def __init__(self, pacing: Pacing, store: Store) -> None:
        self._queues = LoopQueues(pacing, store)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.status()}>"

    def __reduce__(self) -> NoReturn:
        raise checks.unpicklable(
            "a rate limiter",
            "make one in each process; processes can share the limits through a SQLiteRateLimiter",
        )

    @property
    def limits(self) -> tuple[RateLimit, ...]:
        """All limits that apply, the shortest window first."""
        return self._queues.pacing.limits

    def slot(self, lane: Lane = Lane.ISSUE) -> AbstractAsyncContextManager[Slot]:
        """A slot for one request. Entering the slot waits until the request may be sent."""
        return QueuedSlot(self._queues, lane)

    def status(self) -> LimiterStatus:
        """The current state, as far as this process has seen it."""
        return self._queues.status()

    async def turn_in(self, waited: float) -> float:
        """See `PacedLimiter.turn_in`."""
        return await self._queues.here().turn_in(waited)

"""The queues in which requests wait for a slot, also during the pause after a 429 or an outage."""

from __future__ import annotations

import asyncio
import os
import threading
from collections import OrderedDict, deque
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, suppress
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import NoReturn, Self
from uuid import uuid4
from weakref import WeakKeyDictionary

from thanx_async._core import checks
from thanx_async._core.errors import TransportError
from thanx_async._core.escaping import get_logger
from thanx_async._core.tasks import RESOLUTION, changed
from thanx_async.limiter._limits import RateLimit
from thanx_async.limiter._pacing import Admission, Pacing, polls_turn
from thanx_async.limiter._protocol import Lane, LimiterStatus, Slot, WindowStatus
from thanx_async.limiter._refusal import LimiterAnswer
from thanx_async.limiter._state import Booking, LimiterState
from thanx_async.limiter._steady import SteadyStore
from thanx_async.limiter._store import Store, StoreAwayError

_log = get_logger("thanx_async.limiter")

_LONG_WAIT = 5.0
_LONGEST_SHOWN = 1e9


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
        decision = self.pacing.decide(state, now)
        held, reason = max(0.0, decision.due - now), decision.reason
        if outage := self.steady.outage:
            held, reason = max(held, outage.retry - now, RESOLUTION), outage.reason
        away_since = state.refusal.away_since
        with self._lock:
            waiting = sum(queue.waiting for queue in self._queues.values())
            round_trips = sorted(self._round_trips)
        return LimiterStatus(
            windows=tuple(self._window(state, limit, now) for limit in self.pacing.limits),
            held_for=held,
            held_until=_wall_time(held) if held else None,
            reason=reason if held else None,
            refused=state.refusal.count,
            waiting=waiting,
            latency=round_trips[int(0.9 * (len(round_trips) - 1))] if round_trips else None,
            no_answer_for=None if away_since is None else max(0.0, now - away_since),
        )

    def _window(self, state: LimiterState, limit: RateLimit, now: float) -> WindowStatus:
        returns = self.pacing.returns(state, limit, now)
        used = min(limit.requests, sum(count for _, count in returns))
        return WindowStatus(limit, used, limit.requests - used, returns)

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
        until = _wall_time(wait).astimezone()
        _log.warning("requests wait for %s, until about %s (%.0f s)", reason, f"{until:%H:%M:%S}", wait)


class SlotQueue:
    """The queue of one event loop.

    Only the first request in the queue asks the store. So event loops and processes take turns, however many
    requests each of them has.
    """

    def __init__(self, queues: LoopQueues) -> None:
        self._shared = queues
        self._pacing = queues.pacing
        self._store = queues.store
        self._name = uuid4().hex
        self._unsure: Booking | None = None
        self._queues: dict[Lane, OrderedDict[QueuedSlot, asyncio.Event]] = {
            lane: OrderedDict() for lane in Lane
        }

    @property
    def waiting(self) -> int:
        """The number of waiting requests."""
        return sum(map(len, self._queues.values()))

    @property
    def _owner(self) -> str:
        """The owner of this queue's tickets; a forked process is another owner."""
        return f"{self._name} {os.getpid()}"

    async def acquire(self, slot: QueuedSlot) -> Booking:
        """Wait for the slot's turn and for the limits. A cancellation gives back the turn and any booking."""
        queue = self._queues[slot.lane]
        queue[slot] = change = asyncio.Event()
        admission: Admission | None = None
        has_asked = False
        try:
            while True:
                change.clear()
                wait: float | None = None
                if self._first() is slot:
                    has_asked = True
                    admission = await self._ask(slot.lane)
                    if admission.booking:
                        return admission.booking
                    wait = max(admission.due - self._store.now(), RESOLUTION)
                    self._shared.waits(wait, admission.reason)
                if admission and self._first() is not slot:
                    wait = None
                    self.wake()
                await changed(change, wait)
        except asyncio.CancelledError:
            del queue[slot]
            if has_asked:  # no other request may be left to use the ticket, and any other asks for a new one
                await self._leave(None)
            raise
        finally:
            queue.pop(slot, None)
            if not self.waiting:
                self._shared.emptied()
            self.wake()

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
            self._queues[first.lane][first].set()

    async def _ask(self, lane: Lane) -> Admission:
        polls, others = lane is Lane.POLL, bool(self._queues[Lane.POLL])
        admissions: list[Admission] = []

        def ask(state: LimiterState, now: float) -> Admission:
            self._pacing.withdraw(state, None, self._unsure)
            admissions.append(self._pacing.admit(state, self._owner, now, polls=polls, others=others))
            return admissions[-1]

        try:
            admission = await self._shared.steady.transact(ask)
        except asyncio.CancelledError:
            if admissions and admissions[-1].booking:
                await self._leave(admissions[-1].booking)
            raise
        except StoreAwayError:
            if admissions:
                self._unsure = admissions[-1].booking
            outage = self._shared.steady.outage
            return Admission(None, *(outage.retry, outage.reason) if outage else (self._store.now(), ""))
        self._unsure = None
        if admission.booking:
            self._shared.admitted()
        return admission

    async def _leave(self, booking: Booking | None) -> None:
        """Give back this queue's ticket, and an unused booking."""
        unsure, self._unsure = self._unsure, None

        def leave(state: LimiterState, _: float) -> None:
            self._pacing.withdraw(state, self._owner, booking)
            self._pacing.withdraw(state, None, unsure)

        await self._shared.steady.record(leave)
        self._shared.wake_others(self)

    def _first(self) -> QueuedSlot | None:
        issuing, polling = self._queues[Lane.ISSUE], self._queues[Lane.POLL]
        polls = polling and (not issuing or polls_turn(self._store.state))
        return next(iter(polling if polls else issuing), None)


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


def _wall_time(wait: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=min(wait, _LONGEST_SHOWN))

"""Limiters: the queue of one process before a store that several may share."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Self
from uuid import uuid4

from thanx_async._core.errors import ConfigurationError, TransportError
from thanx_async._core.tasks import RESOLUTION, changed
from thanx_async.limiter._limits import RateLimit
from thanx_async.limiter._pacing import Admission, Pacing, polls_turn
from thanx_async.limiter._protocol import Lane, LimiterStatus, Slot, WindowStatus
from thanx_async.limiter._refusal import LimiterAnswer
from thanx_async.limiter._state import Booking, LimiterState
from thanx_async.limiter._store import Store

_log = logging.getLogger("thanx_async.limiter")

_LONG_WAIT = 5.0
_LONGEST_TOLD = 1e9


class SlotQueue:
    """The queue of a limiter. Of each process one waiter at a time asks the store, so that processes take
    turns however many requests each of them has."""

    def __init__(self, pacing: Pacing, store: Store) -> None:
        self._pacing = pacing
        self._store = store
        self._owner = uuid4().hex
        self._queues: dict[Lane, OrderedDict[QueuedSlot, asyncio.Event]] = {
            lane: OrderedDict() for lane in Lane
        }
        self._round_trips: deque[float] = deque(maxlen=100)
        self._waiting_since: float | None = None
        self._announced = False
        self._store_failed = False

    @property
    def limits(self) -> tuple[RateLimit, ...]:
        return self._pacing.limits

    async def refresh(self) -> None:
        """Read the store, and change nothing in it."""
        await self._store.transact(lambda _state, _now: None)

    def status(self) -> LimiterStatus:
        """The state now, by what this process has seen."""
        now, state = self._store.now(), self._store.state
        decision = self._pacing.decide(state, now)
        held = max(0.0, decision.due - now)
        used = ((limit, self._pacing.used(state, limit, now)) for limit in self.limits)
        return LimiterStatus(
            windows=tuple(WindowStatus(limit, count, limit.requests - count) for limit, count in used),
            held_for=held,
            held_until=_wall_time(held) if held else None,
            reason=decision.reason if held else None,
            refused=state.refusal.count,
            waiting=sum(map(len, self._queues.values())),
            latency=self._latency(),
            no_answer_for=None
            if state.refusal.away_since is None
            else max(0.0, now - state.refusal.away_since),
        )

    async def acquire(self, slot: QueuedSlot) -> Booking:
        """Wait for the slot's turn and for the limits; who is cancelled leaves no trace."""
        queue = self._queues[slot.lane]
        queue[slot] = change = asyncio.Event()
        admission: Admission | None = None
        try:
            while True:
                change.clear()
                wait: float | None = None
                if self._first() is slot:
                    admission = await self._ask(slot.lane)
                    if admission.booking:
                        return admission.booking
                    wait = max(admission.due - self._store.now(), RESOLUTION)
                    self._announce(wait, admission.reason)
                if admission and self._first() is not slot:
                    wait = None
                    self._wake()
                await changed(change, wait)
        except asyncio.CancelledError:
            del queue[slot]
            await self._leave(None)
            raise
        finally:
            queue.pop(slot, None)
            if not any(self._queues.values()):
                self._waiting_since = None
            self._wake()

    async def release(self, booking: Booking, answer: LimiterAnswer | None, *, failed: bool) -> None:
        """The request is over. What cannot be recorded now counts when its lease is over."""
        if answer is not None:
            self._round_trips.append(answer.time - booking.sent)
        try:
            await self._record(
                lambda state, now: self._pacing.settle(state, booking, now, answer, failed=failed)
            )
        finally:
            self._wake()

    def now(self) -> float:
        return self._store.now()

    async def _ask(self, lane: Lane) -> Admission:
        polls, others = lane is Lane.POLL, bool(self._queues[Lane.POLL])
        admissions: list[Admission] = []

        def ask(state: LimiterState, now: float) -> Admission:
            admissions.append(self._pacing.admit(state, self._owner, now, polls=polls, others=others))
            return admissions[-1]

        try:
            admission = await self._store.transact(ask)
        except asyncio.CancelledError:
            if admissions and admissions[-1].booking:
                await self._leave(admissions[-1].booking)
            raise
        if admission.booking:
            self._waiting_since = None
            self._announced = self._announced and bool(self._store.state.refusal.failures)
        return admission

    async def _leave(self, booking: Booking | None) -> None:
        """Give back a booking that is not used, and the ticket if nobody is left to use it."""
        if booking is None and any(self._queues.values()):
            return
        await self._record(lambda state, _: self._pacing.withdraw(state, self._owner, booking))

    async def _record(self, change: Callable[[LimiterState, float], None]) -> None:
        try:
            await self._store.transact(change)
        except ConfigurationError as error:
            if not self._store_failed:
                self._store_failed = True
                _log.warning("what was sent could not be recorded, and counts as late as possible: %s", error)

    def _first(self) -> QueuedSlot | None:
        issuing, polling = self._queues[Lane.ISSUE], self._queues[Lane.POLL]
        polls = polling and (not issuing or polls_turn(self._store.state))
        return next(iter(polling if polls else issuing), None)

    def _wake(self) -> None:
        if (first := self._first()) is not None:
            self._queues[first.lane][first].set()

    def _announce(self, wait: float, reason: str) -> None:
        now = self._store.now()
        if self._waiting_since is None:
            self._waiting_since = now
        if now + wait - self._waiting_since > _LONG_WAIT and not self._announced:
            self._announced = True
            until = _wall_time(wait).astimezone()
            _log.warning("requests wait for %s, until about %s (%.0f s)", reason, f"{until:%H:%M:%S}", wait)

    def _latency(self) -> float | None:
        if not self._round_trips:
            return None
        return sorted(self._round_trips)[int(0.9 * (len(self._round_trips) - 1))]


class QueuedSlot:
    """One request's place in the queue, and then its permission."""

    __slots__ = ("_answer", "_booking", "_queue", "lane")

    def __init__(self, queue: SlotQueue, lane: Lane) -> None:
        self._queue = queue
        self._booking: Booking | None = None
        self._answer: LimiterAnswer | None = None
        self.lane = lane

    async def __aenter__(self) -> Self:
        self._booking = await self._queue.acquire(self)
        return self

    def answered(self, status: int, headers: Mapping[str, str]) -> None:
        self._answer = LimiterAnswer(
            self._queue.now(), status, headers.get("Retry-After", ""), headers.get("Date", "")
        )

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._booking is not None:
            booking, self._booking = self._booking, None
            failed = isinstance(error, TransportError | OSError)  # which a TimeoutError is
            await self._queue.release(booking, self._answer, failed=failed)


class QueuedLimiter:
    """What all limiters of this library have in common: a queue before a store."""

    def __init__(self, pacing: Pacing, store: Store) -> None:
        self._queue = SlotQueue(pacing, store)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.status()}>"

    @property
    def limits(self) -> tuple[RateLimit, ...]:
        """All that apply, the shortest window first."""
        return self._queue.limits

    def slot(self, lane: Lane = Lane.ISSUE) -> AbstractAsyncContextManager[Slot]:
        """A slot for one request, to be entered once."""
        return QueuedSlot(self._queue, lane)

    def status(self) -> LimiterStatus:
        """The state now, by what this process has seen."""
        return self._queue.status()


def _wall_time(wait: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=min(wait, _LONGEST_TOLD))

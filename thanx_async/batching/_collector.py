"""The engine of micro-batching: collects guests who come one by one, and cuts a batch as late as it can.

A batch is due when it is full or its oldest guest has waited long enough. It is cut when, besides, a request
may go; until then it grows, and every guest can still be taken out of it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import Protocol

from thanx_async._batches import Positions, batch_key
from thanx_async._core.errors import BadRequestError, LedgerError, ThanxError
from thanx_async._core.tasks import changed
from thanx_async.batching._batch import Entry
from thanx_async.batching._chunker import Batch
from thanx_async.batching._outcomes import Outcomes
from thanx_async.batching._report import BatchInDoubt, CloseReport
from thanx_async.batching._waiting_room import (
    Answer,
    Guest,
    WaitingRoom,
    closed,
    tell,
    tell_in_slices,
    twin,
)
from thanx_async.jobs import JobHandle
from thanx_async.limiter import LimiterStatus, RateLimiter

_log = logging.getLogger(__name__)

_LEAD = 0.02  # queued this much before a slot is free, so that no poll takes it
_LOOK_AGAIN = 0.25
_MOST_SPLITS = 16


class Sender(Protocol):
    """What sends the batches; it keeps each entry and its ``delivery`` true."""

    @property
    def concurrency(self) -> int: ...

    async def deliver(self, entry: Entry) -> None: ...

    async def begin_run(self) -> str: ...

    async def end_run(self, run_id: str) -> None: ...


class Collector:
    """One opening of a batcher. Owns a task that cuts batches, and that owns a task for each batch."""

    def __init__(
        self, sender: Sender, limiter: RateLimiter, *, size: int, linger: float, max_waiting: int
    ) -> None:
        self.outcomes = Outcomes(max_waiting)
        self.closing = False
        self._sender = sender
        self._limiter = limiter
        self._size = min(size, max_waiting)
        self._linger = linger
        self._change = asyncio.Event()
        self._waiting = WaitingRoom(max_waiting, notable=frozenset({1, self._size}), changed=self._change.set)
        self._run_id: str | None = None
        self._begun: list[str] = []
        self._batches = 0
        self._position = 0
        self._last_cut = float("-inf")
        self._flying: dict[Entry, list[Guest]] = {}
        self._unsent: list[str] = []
        self._in_doubt: list[BatchInDoubt] = []
        self._pump = asyncio.create_task(self._run())
        self._pump.add_done_callback(self._finish)

    def __repr__(self) -> str:
        state = "closed" if self.is_closed else "closing" if self.closing else "open"
        waiting = len(self._waiting) + self._waiting.outside
        return f"{state}, {waiting:,} waiting, {len(self._flying)} batches in flight"

    @property
    def is_closed(self) -> bool:
        return self._pump.done()

    @property
    def report(self) -> CloseReport:
        return CloseReport(tuple(self._unsent), tuple(self._in_doubt))

    async def add(self, value: str) -> JobHandle:
        if self.closing:
            raise closed("the batcher is closed: nothing was sent for this guest")
        answer = await self._waiting.stay(value)
        if isinstance(answer, ThanxError):
            raise twin(answer)
        return answer

    async def aclose(self, timeout: float | None) -> CloseReport:
        """Send what waits, at once, and wait for the answers; past the timeout, `abort`."""
        self.closing = True
        self._change.set()
        try:
            if timeout is None or timeout > 0:
                await asyncio.wait([self._pump], timeout=timeout)
        finally:
            await self.abort()
        return self.report

    async def abort(self) -> None:
        """Send nothing more, and end what is under way."""
        self.closing = True
        self._pump.cancel()
        await asyncio.wait([self._pump])
        if not self._pump.cancelled():
            self._pump.result()

    async def _run(self) -> None:
        try:
            await self._collect()
        finally:
            await self._end_run()

    async def _begin_run(self) -> None:
        """With a ledger, batches are recorded under a run; one that another process took over, as it may
        after a long silence, is followed by a new one."""
        try:
            self._run_id = await self._sender.begin_run()
            self._begun.append(self._run_id)
        except ThanxError as error:
            tell(self._waiting.take(), error)

    async def _end_run(self) -> None:
        """Also those that were followed by another: what they left in doubt can be recovered then."""
        self._run_id = None
        for run_id in self._begun:
            try:
                await self._sender.end_run(run_id)
            except ThanxError as error:
                _log.warning("run %s could not be given back to the ledger: %s", run_id, error)

    async def _collect(self) -> None:
        async with asyncio.TaskGroup() as group:
            while self._waiting or not self.closing:
                self._change.clear()
                try:
                    wait = self._wait_to_cut()
                except Exception as error:  # noqa: BLE001 - of a limiter of the user's: its guests are told
                    tell(self._waiting.take(), as_thanx(error, None))
                    continue
                if wait is None or wait > 0:
                    await changed(self._change, wait)
                elif self._run_id is None:
                    await self._begin_run()
                else:
                    self._cut(group, self._run_id)

    def _finish(self, _: asyncio.Task[None]) -> None:
        """However the work ended, nobody waits for ever."""
        self.closing = True
        for guests in self._flying.values():
            self._abandon(guests)
        while self._waiting:
            self._abandon(self._waiting.take())
        self._flying.clear()

    def _wait_to_cut(self) -> float | None:
        """Seconds until a batch should be cut, by what is known now; None: not before a change."""
        if not self._waiting or len(self._flying) >= self._sender.concurrency or self._one_is_queued():
            return None
        status = self._limiter.status()
        if not self.closing and len(self._waiting) < self._size:
            due = max(self._waiting.oldest + self._linger, self._last_cut + pace(status))
            wait = due - asyncio.get_running_loop().time()
            if wait > 0:
                return wait
        return min(status.held_for - _LEAD, _LOOK_AGAIN)

    def _one_is_queued(self) -> bool:
        """A batch was cut and has not been sent: who comes now goes into the one after it."""
        return any(not (entry.delivery.on_wire or entry.delivery.in_doubt) for entry in self._flying)

    def _cut(self, group: asyncio.TaskGroup, run_id: str) -> None:
        guests = self._waiting.take(self._size)
        entry = self._entry(run_id, self._position, guests)
        self._position += len(guests)
        self._last_cut = asyncio.get_running_loop().time()
        group.create_task(self._see_through(entry, guests))

    def _entry(self, run_id: str, first: int, guests: list[Guest]) -> Entry:
        values = [guest.value for guest in guests]
        batch = Batch(self._batches, Positions(first, len(values)), values)
        entry = Entry(batch, batch_key(run_id, batch.number), run_id, guests[0].since)
        entry.delivery.on_send = self._change.set
        self._batches += 1
        self._flying[entry] = guests
        return entry

    async def _see_through(self, entry: Entry, guests: list[Guest]) -> None:
        try:
            await self._send(entry, guests, iter(range(_MOST_SPLITS)))
        finally:
            self._abandon(guests)

    async def _send(self, entry: Entry, guests: list[Guest], splits: Iterator[int]) -> None:
        """Send a batch and tell everybody. Where Thanx refuses it for the value of one guest, its halves
        are sent instead, and so on, until that guest is alone."""
        answer = await self._deliver(entry, guests)
        if len(guests) > 1 and blames_one_guest(answer) and next(splits, None) is not None:
            first, half = entry.positions.first, len(guests) // 2
            for start, part in ((first, guests[:half]), (first + half, guests[half:])):
                await self._send(self._entry(entry.run_id, start, part), part, splits)
        else:
            await tell_in_slices(guests, answer)

    async def _deliver(self, entry: Entry, guests: list[Guest]) -> Answer:
        error: ThanxError | None = None
        try:
            await self._sender.deliver(entry)
        except asyncio.CancelledError:
            self.closing = True
            if entry.handle or entry.delivery.in_doubt:
                tell(guests, self._answer(entry, guests, None))
            raise
        except Exception as failure:  # noqa: BLE001 - whatever it is, it is the answer to these callers
            error = as_thanx(failure, entry)
            if isinstance(failure, LedgerError) and self._run_id == entry.run_id:
                self._run_id = None
        finally:
            del self._flying[entry]
            self._change.set()
        return self._answer(entry, guests, error or entry.delivery.refused)

    def _answer(self, entry: Entry, guests: list[Guest], error: ThanxError | None) -> Answer:
        values = [guest.value for guest in guests]
        if entry.handle:
            if error:
                _log.warning("job %s was accepted, and then: %s", entry.handle.id, type(error).__name__)
            self.outcomes.accepted(entry.handle, values)
            return entry.handle
        if entry.delivery.in_doubt and self.closing:
            self._in_doubt.append(BatchInDoubt(entry.key, tuple(values)))
        elif self.closing and not isinstance(error, BadRequestError):
            self._unsent += values
        return error or closed(
            "the batcher closed before Thanx answered: in doubt. Repeat the batch with the same identifiers"
            f" and idempotency key {entry.key}",
            key=entry.key,
        )

    def _abandon(self, guests: list[Guest]) -> None:
        left = [guest for guest in guests if not guest.told]
        if left:
            self._unsent += [guest.value for guest in left]
            tell(left, closed("the batcher closed before this guest was sent"))


_LASTING = 2 / 3
_LONGEST_PACE = 2.0
_ONE_GUEST = frozenset({"USER_EMAIL_INVALID", "USER_PHONE_INVALID"})


def pace(status: LimiterStatus) -> float:
    """Seconds from one batch to the next while guests come steadily: the free part of the longer limits
    should last two thirds of their time, since a service that spends it at once then stands still."""
    shortest = min((window.limit.seconds for window in status.windows), default=0.0)
    paces = [
        window.limit.seconds * _LASTING / max(1, window.free)
        for window in status.windows
        if window.limit.seconds > shortest
    ]
    return min(_LONGEST_PACE, max(paces, default=0.0))


def blames_one_guest(answer: Answer) -> bool:
    return isinstance(answer, BadRequestError) and answer.code in _ONE_GUEST and not answer.in_doubt


def as_thanx(error: Exception, entry: Entry | None) -> ThanxError:
    if isinstance(error, ThanxError):
        wrapped = error
    else:
        wrapped = ThanxError(f"the batch could not be sent ({type(error).__name__})")
        wrapped.__cause__ = error
    if entry is not None and entry.delivery.in_doubt:
        wrapped.in_doubt, wrapped.idempotency_key = True, entry.key
    return wrapped

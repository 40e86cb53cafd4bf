"""The engine of micro-batching: collects guests who come one by one, and cuts a batch as late as it can.

A batch is due when it is full or its oldest guest has waited long enough. It is cut when, besides, a request
may go; until then it grows, and every guest can still be taken out of it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from uuid import uuid4

from thanx_async._batches import SERVICE_RUNS, Positions
from thanx_async._core.errors import BadRequestError, LedgerError, ThanxError
from thanx_async._core.tasks import changed
from thanx_async.batching._batch import Batch
from thanx_async.batching._chunker import Chunk
from thanx_async.batching._outcomes import RememberedGuests
from thanx_async.batching._report import BatchInDoubt, CloseReport
from thanx_async.batching._sender import BatchSender
from thanx_async.batching._waiting_room import (
    Guest,
    Reply,
    WaitingRoom,
    closed,
    tell,
    tell_in_slices,
    twin,
)
from thanx_async.jobs import JobHandle
from thanx_async.limiter import LimiterStatus

_log = logging.getLogger("thanx_async.batching")

"""How the ids of runs begin whose guests come one by one."""

_LEAD = 0.02  # queued this much before a slot is free, so that no poll takes it
_LOOK_AGAIN = 0.25
_MOST_SPLITS = 16


class Collector:
    """One opening of a batcher. Owns a task that cuts batches, and that owns a task for each batch."""

    def __init__(self, sender: BatchSender, *, size: int, linger: float, max_waiting: int) -> None:
        self.outcomes = RememberedGuests(max_waiting)
        self.closing = False
        self._sender = sender
        self._limiter = sender.limiter
        self._size = min(size, max_waiting)
        self._linger = linger
        self._change = asyncio.Event()
        self._waiting = WaitingRoom(max_waiting, notable=frozenset({1, self._size}), changed=self._change.set)
        self._run_id: str | None = None
        self._begun: list[str] = []
        self._batches = 0
        self._position = 0
        self._last_cut = float("-inf")
        self._flying: dict[Batch, list[Guest]] = {}
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
            self._run_id = await self._open_run()
            self._begun.append(self._run_id)
        except ThanxError as error:
            tell(self._waiting.take(), error)

    async def _open_run(self) -> str:
        run_id = f"{SERVICE_RUNS}{uuid4().hex}"
        if self._sender.recorder is not None:
            await self._sender.recorder.open(run_id)
        return run_id

    async def _end_run(self) -> None:
        """Also those that were followed by another: what they left in doubt can be recovered then."""
        self._run_id = None
        for run_id in self._begun:
            try:
                if self._sender.recorder is not None:
                    await self._sender.recorder.close(run_id)
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
        return any(not (batch.delivery.on_wire or batch.delivery.in_doubt) for batch in self._flying)

    def _cut(self, group: asyncio.TaskGroup, run_id: str) -> None:
        guests = self._waiting.take(self._size)
        batch = self._batch(run_id, self._position, guests)
        self._position += len(guests)
        self._last_cut = asyncio.get_running_loop().time()
        group.create_task(self._see_through(batch, guests))

    def _batch(self, run_id: str, first: int, guests: list[Guest]) -> Batch:
        values = [guest.value for guest in guests]
        chunk = Chunk(self._batches, Positions(first, len(values)), values)
        batch = Batch(chunk, run_id, since=guests[0].since, on_send=self._change.set)
        self._batches += 1
        self._flying[batch] = guests
        return batch

    async def _see_through(self, batch: Batch, guests: list[Guest]) -> None:
        try:
            await self._send(batch, guests, iter(range(_MOST_SPLITS)))
        finally:
            self._abandon(guests)

    async def _send(self, batch: Batch, guests: list[Guest], splits: Iterator[int]) -> None:
        """Send a batch and tell everybody. Where Thanx refuses it for the value of one guest, its halves
        are sent instead, and so on, until that guest is alone."""
        answer = await self._deliver(batch, guests)
        if len(guests) > 1 and blames_one_guest(answer) and next(splits, None) is not None:
            first, half = batch.positions.first, len(guests) // 2
            for start, part in ((first, guests[:half]), (first + half, guests[half:])):
                await self._send(self._batch(batch.run_id, start, part), part, splits)
        else:
            await tell_in_slices(guests, answer)

    async def _deliver(self, batch: Batch, guests: list[Guest]) -> Reply:
        error: ThanxError | None = None
        try:
            await self._sender.deliver(batch)
        except asyncio.CancelledError:
            self.closing = True
            if batch.handle or batch.delivery.in_doubt:
                tell(guests, self._answer(batch, guests, None))
            raise
        except Exception as failure:  # noqa: BLE001 - whatever it is, it is the answer to these callers
            error = as_thanx(failure, batch)
            if isinstance(failure, LedgerError) and self._run_id == batch.run_id:
                self._run_id = None
        finally:
            del self._flying[batch]
            self._change.set()
        return self._answer(batch, guests, error or batch.refused)

    def _answer(self, batch: Batch, guests: list[Guest], error: ThanxError | None) -> Reply:
        values = [guest.value for guest in guests]
        if batch.handle:
            if error:
                _log.warning("job %s was accepted, and then: %s", batch.handle.id, type(error).__name__)
            self.outcomes.accepted(batch.handle, values)
            return batch.handle
        if batch.delivery.in_doubt and self.closing:
            self._in_doubt.append(BatchInDoubt(batch.key, tuple(values)))
        elif self.closing and not isinstance(error, BadRequestError):
            self._unsent += values
        return error or closed(
            "the batcher closed before Thanx answered: in doubt. Repeat the batch with the same identifiers"
            f" and idempotency key {batch.key}",
            key=batch.key,
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


def blames_one_guest(answer: Reply) -> bool:
    return isinstance(answer, BadRequestError) and answer.code in _ONE_GUEST and not answer.in_doubt


def as_thanx(error: Exception, batch: Batch | None) -> ThanxError:
    if isinstance(error, ThanxError):
        wrapped = error
    else:
        wrapped = ThanxError(f"the batch could not be sent ({type(error).__name__})")
        wrapped.__cause__ = error
    if batch is not None and batch.delivery.in_doubt:
        wrapped.in_doubt, wrapped.idempotency_key = True, batch.key
    return wrapped

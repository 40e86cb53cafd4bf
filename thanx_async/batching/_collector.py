"""The engine of `AsyncBatcher.add`: micro-batching, which decides when a batch is cut and sent.

A batch is due when it is full, or when its oldest guest has waited for the linger time. It is cut only once
the rate limits allow a request as well. Until then the batch grows, and callers can still cancel.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextvars import Context
from typing import TYPE_CHECKING

from thanx_async._batches import Positions
from thanx_async._core.errors import BadRequestError, LedgerError, ThanxError
from thanx_async._core.escaping import get_logger
from thanx_async._core.tasks import changed
from thanx_async.batching._batch import Batch
from thanx_async.batching._chunker import Chunk
from thanx_async.batching._cutting import CutTimer
from thanx_async.batching._doubts import DoubtSettler
from thanx_async.batching._follower import OutcomeFollower
from thanx_async.batching._outcomes import Outcome, RememberedGuests
from thanx_async.batching._report import BatchInDoubt, CloseReport
from thanx_async.batching._rules import as_thanx_error
from thanx_async.batching._sender import BatchSender
from thanx_async.batching._service_runs import ServiceRuns
from thanx_async.batching._waiting_room import Guest, Reply, WaitingRoom, closed_error, tell, tell_in_slices
from thanx_async.jobs import JobHandle

if TYPE_CHECKING:
    from thanx_async.batching._recorder import Recorder

_log = get_logger("thanx_async.batching")

_MAX_SPLITS = 16


class Collector:
    """Collects guests between the opening and the closing of a batcher.

    Owns one task that cuts batches; that task owns one task for each batch.

    Args:
        sender: sends the batches.
        recorder: records them, as the sender does; None without a ledger.
        size: identifiers in a batch, at most.
        linger: seconds for which the first guest of a batch waits for others.
        max_waiting: guests admitted at once; further callers wait for a place.
        follow_outcomes: wait in the background for the accepted jobs.
    """

    def __init__(
        self,
        sender: BatchSender,
        recorder: Recorder | None,
        *,
        size: int,
        linger: float,
        max_waiting: int,
        follow_outcomes: bool,
    ) -> None:
        self._outcomes = RememberedGuests(max_waiting)
        self._closing = False
        self._sender = sender
        self._size = min(size, max_waiting)
        self._change = asyncio.Event()
        marks = frozenset({1, self._size})
        self._waiting = WaitingRoom(
            max_waiting, sender.note_caller, thresholds=marks, on_threshold=self._change.set
        )
        self._next_number = 0
        self._next_position = 0
        self._timer = CutTimer(sender.limiter, self._waiting, linger=linger)
        self._in_flight: dict[Batch, list[Guest]] = {}
        self._unsent: list[str] = []
        self._in_doubt: list[BatchInDoubt] = []
        self._runs = ServiceRuns(recorder)
        self._follower = OutcomeFollower() if follow_outcomes else None
        self._doubts = None if recorder is None else DoubtSettler(sender, recorder, self._follower)
        # Otherwise each batch would belong to the trace of whoever has opened the batcher.
        self._worker = asyncio.create_task(self._run(), context=Context())
        self._worker.add_done_callback(self._abandon_all)

    def __repr__(self) -> str:
        state = "closed" if self.is_closed else "closing" if self._closing else "open"
        waiting = len(self._waiting) + self._waiting.overflow
        return f"{state}, {waiting:,} waiting, {len(self._in_flight)} batches in flight"

    @property
    def is_closed(self) -> bool:
        """Whether the batcher has closed and all work has ended."""
        return self._worker.done()

    @property
    def report(self) -> CloseReport:
        """The guests left without an answer."""
        left = [] if self._doubts is None else self._doubts.left
        return CloseReport(tuple(self._unsent), (*self._in_doubt, *left))

    def add(self, value: str, timeout: float | None) -> Coroutine[object, object, JobHandle]:
        """Wait until Thanx has accepted the guest's batch.

        Raises:
            AddTimeoutError: it was not answered within ``timeout`` seconds.
            ThanxError: the error that ended the batch.
        """
        if self._closing:
            raise closed_error("the batcher is closed: nothing was sent for this guest")
        return self._waiting.wait(value, timeout)

    def outcome_for(self, value: str, timeout: float | None) -> Coroutine[object, object, Outcome]:
        """Wait until the guest's batch is accepted, if it is on the way, and then for its job.

        Raises:
            ConfigurationError: the guest is neither on the way nor remembered.
            AddTimeoutError, JobTimeoutError, ThanxError: as for `AsyncBatcher.outcome`.
        """
        return self._outcomes.outcome_for(value, self._waiting.find_pending(value), timeout)

    async def settle_doubts(self) -> None:
        """Try once to settle what this opening has left in doubt."""
        if self._doubts is not None:
            await self._doubts.settle_now()

    async def aclose(self, timeout: float | None) -> CloseReport:
        """Send the waiting guests without lingering, and wait for the answers; after the timeout, `abort`."""
        self._close_background()
        self._change.set()
        try:
            if timeout is None or timeout > 0:
                await asyncio.wait([self._worker], timeout=timeout)
        finally:
            await self.abort()
        return self.report

    async def abort(self) -> None:
        """Send nothing more, and cancel the requests in flight."""
        self._close_background()
        self._worker.cancel()
        await asyncio.wait([self._worker])
        if not self._worker.cancelled():
            self._worker.result()

    def _close_background(self) -> None:
        if self._doubts is not None:
            self._doubts.close()
        if self._follower is not None:
            self._follower.close()
        self._closing = True

    async def _run(self) -> None:
        try:
            await self._collect()
        finally:
            await self._runs.close()

    async def _begin_run(self) -> None:
        """Open a run to record batches under. A new run replaces one that another process took over."""
        try:
            await self._runs.begin()
        except ThanxError as error:
            self._answer(self._waiting.take(), error)

    async def _collect(self) -> None:
        async with asyncio.TaskGroup() as group:
            while self._waiting or not self._closing:
                self._change.clear()
                try:
                    wait = self._wait_to_cut()
                    if wait is not None and wait <= 0:
                        wait = await self._timer.wait_for_turn(is_full=self._is_full)
                except Exception as error:  # noqa: BLE001 - a limiter of the user's may raise anything; the callers get it
                    self._answer(self._waiting.take(), as_thanx_error(error, None))
                    continue
                if wait is None or wait > 0 or not self._waiting:
                    await changed(self._change, wait)
                elif self._runs.current is None:
                    await self._begin_run()
                else:
                    self._cut(group, self._runs.current)

    def _abandon_all(self, _: asyncio.Task[None]) -> None:
        """Answer every caller once the worker has ended, for whatever reason."""
        self._closing = True
        for guests in self._in_flight.values():
            self._abandon(guests)
        while self._waiting:
            self._abandon(self._waiting.take())
        self._in_flight.clear()
        if self._doubts is not None:
            self._doubts.end()

    def _wait_to_cut(self) -> float | None:
        """Seconds until a batch should be cut, as far as is known now; None to wait for a change."""
        if not self._waiting or len(self._in_flight) >= self._sender.concurrency or self._has_queued_batch():
            return None
        return self._timer.wait(is_full=self._is_full)

    @property
    def _is_full(self) -> bool:
        """Whether there is nothing to be gained by waiting for more guests."""
        return self._closing or len(self._waiting) >= self._size

    def _has_queued_batch(self) -> bool:
        """Whether a batch was cut and not sent yet. New guests then wait for the next batch."""
        return any(not (batch.delivery.on_wire or batch.delivery.in_doubt) for batch in self._in_flight)

    def _cut(self, group: asyncio.TaskGroup, run_id: str) -> None:
        guests = self._waiting.take(self._size)
        batch = self._new_batch(run_id, self._next_position, guests)
        self._next_position += len(guests)
        self._in_flight[batch] = guests
        self._timer.cut()
        group.create_task(self._process(batch, guests, group))

    def _new_batch(self, run_id: str, first: int, guests: list[Guest]) -> Batch:
        chunk = Chunk(self._next_number, Positions(first, len(guests)), [guest.value for guest in guests])
        callers = tuple(caller for guest in guests for caller in guest.noted)
        batch = Batch(chunk, run_id, since=guests[0].since, on_send=self._change.set, callers=callers)
        self._next_number += 1
        for guest in guests:
            guest.key = batch.key
        return batch

    async def _process(self, batch: Batch, guests: list[Guest], group: asyncio.TaskGroup) -> None:
        try:
            await self._send(batch, guests, group)
        finally:
            self._abandon(guests)
            self._waiting.forget(guests)

    async def _send(self, batch: Batch, guests: list[Guest], group: asyncio.TaskGroup) -> None:
        """Send a batch, and give its callers the reply.

        If Thanx refuses the batch because of one guest's value, its halves are sent instead, and so on, until
        that guest is alone.
        """
        parts, splits_left = [(batch, guests)], _MAX_SPLITS
        try:
            while parts:
                batch, guests = parts.pop()
                self._in_flight[batch] = guests
                if len(guests) > 1 and splits_left:
                    batch.let_split(True)
                reply = await self._deliver(batch, guests)
                if batch.is_split:
                    splits_left -= 1
                    parts += self._halves(batch, guests)
                    await self._runs.record_halves([half for half, _ in reversed(parts[-2:])])
                    continue
                self._keep(batch, guests, reply, group)
                await tell_in_slices(guests, reply)
                if self._follower is not None and not isinstance(reply, ThanxError):
                    self._follower.follow(reply, group)
        finally:
            for batch, guests in parts if self._doubts is not None else ():
                batch.doubt()  # it may be recorded, so another process may send it
                self._answer(guests, self._reply(batch, guests, None))

    def _halves(self, batch: Batch, guests: list[Guest]) -> list[tuple[Batch, list[Guest]]]:
        """The halves of a batch, the second one first.

        Both get their keys now, so that callers who stop waiting are told the key that is sent.
        """
        first, middle = batch.positions.first, len(guests) // 2
        halves = ((first, guests[:middle]), (first + middle, guests[middle:]))
        return [(self._new_batch(batch.run_id, start, half), half) for start, half in halves][::-1]

    def _keep(self, batch: Batch, guests: list[Guest], reply: Reply, group: asyncio.TaskGroup) -> None:
        """Keep an error for `outcome`, and a batch in doubt to be settled later."""
        if not isinstance(reply, ThanxError):
            if self._doubts is not None:
                self._doubts.thanx_answers()
        elif self._doubts is not None and batch.is_in_doubt and not self._closing:
            values = [guest.value for guest in guests]
            self._outcomes.remember(self._doubts.take(batch, values, reply, group), values)
        else:
            self._outcomes.remember_error(reply, guests)

    def _answer(self, guests: list[Guest], reply: Reply) -> None:
        if isinstance(reply, ThanxError):
            self._outcomes.remember_error(reply, guests)
        tell(guests, reply)
        self._waiting.forget(guests)

    async def _deliver(self, batch: Batch, guests: list[Guest]) -> Reply:
        error: ThanxError | None = None
        try:
            await self._sender.deliver(batch)
        except asyncio.CancelledError:
            self._closing = True
            if batch.handle or batch.delivery.in_doubt:
                self._answer(guests, self._reply(batch, guests, None))
            raise
        except Exception as failure:  # noqa: BLE001 - any error is the reply to these callers
            error = as_thanx_error(failure, batch)
            if isinstance(failure, LedgerError):
                self._runs.lost(batch.run_id)
        finally:
            del self._in_flight[batch]
            self._change.set()
        return self._reply(batch, guests, error or batch.refused)

    def _reply(self, batch: Batch, guests: list[Guest], error: ThanxError | None) -> Reply:
        values = [guest.value for guest in guests]
        if batch.handle:
            if error:
                _log.warning("job %s was accepted, and then: %s", batch.handle.id, type(error).__name__)
            self._outcomes.remember(batch.handle, values)
            return batch.handle
        if batch.delivery.in_doubt and self._closing:
            self._in_doubt.append(BatchInDoubt(batch.key, tuple(values)))
        elif self._closing and not isinstance(error, BadRequestError):
            self._unsent += values
        return error or closed_error(
            "the batcher closed before Thanx answered: in doubt. Repeat the batch with the same identifiers"
            f" and idempotency key {batch.key}",
            key=batch.key,
        )

    def _abandon(self, guests: list[Guest]) -> None:
        unanswered = [guest for guest in guests if guest.reply is None]
        if unanswered:
            self._unsent += [guest.value for guest in unanswered]
            self._answer(unanswered, closed_error("the batcher closed before this guest was sent"))

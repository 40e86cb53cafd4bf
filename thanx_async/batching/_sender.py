"""Sends one batch: records it if there is a ledger, tells the hook, and leaves its fate known in any case."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from copy import copy
from typing import Protocol

from thanx_async._core.errors import BadRequestError
from thanx_async._core.tasks import only_own_cancellation
from thanx_async.batching._batch import Batch
from thanx_async.batching._target import Target
from thanx_async.http import Transport, wire
from thanx_async.instrumentation import BatchEvent, BatchFate, Hook, emit, noting_callers
from thanx_async.jobs import Guests
from thanx_async.limiter import Lane, RateLimiter, in_flight

Send = Callable[[Batch, bytes], Awaitable[None]]


class Records(Protocol):
    """Records what becomes of each batch."""

    async def deliver(self, batch: Batch, body: bytes, send: Send) -> None:
        """Record a batch, send it, and record its fate."""


class BatchSender:
    """Sends the batches of one batcher.

    Args:
        target: what the batches issue, and the registry that follows their jobs.
        transport: sends the requests.
        limiter: the rate limiter; its rate and latency set the concurrency.
        hook: gets a record before and after each delivery.
        recorder: records each batch before it is sent; None without a ledger.
        max_concurrency: requests in flight; None for as many as the rate limits and the latency call for.
        keep_values: keep the identifiers of a batch after the transport has taken its body.
        lane: the limiter's queue in which the batches wait.
    """

    def __init__(
        self,
        target: Target,
        transport: Transport,
        limiter: RateLimiter,
        hook: Hook,
        recorder: Records | None,
        *,
        max_concurrency: int | None,
        keep_values: bool,
        lane: Lane = Lane.ISSUE,
    ) -> None:
        self.target = target
        self.limiter = limiter
        self._recorder = recorder
        self.note_caller: Callable[[], object | None] | None = noting_callers(hook)
        self._transport = transport
        self._hook = hook
        self._max_concurrency = max_concurrency
        self._keep_values = keep_values
        self.lane = lane

    def in_lane(self, lane: Lane) -> BatchSender:
        """The same sender, for batches that wait in another lane."""
        other = copy(self)
        other.lane = lane
        return other

    @property
    def concurrency(self) -> int:
        """Requests allowed in flight: by default the rate times the latency (Little's law), plus one."""
        if self._max_concurrency is not None:
            return self._max_concurrency
        return in_flight(self.limiter.limits, self.limiter.status().latency)

    def check_loop(self) -> None:
        """Make sure, before anything happens, that the client is not open on another event loop."""
        self._transport.check_loop()

    async def deliver(self, batch: Batch) -> None:
        """Send one batch. With a ledger, the batch is recorded first, and its run must be claimed.

        In any case the batch and the ledger know the fate afterwards. A 400 does not raise: it is
        ``batch.refused``.

        Raises:
            ThanxError: an error that should stop the run.
        """
        was_in_doubt = batch.delivery.in_doubt
        emit(self._hook, _event(batch, BatchFate.SENDING, was_in_doubt=was_in_doubt))
        body = batch.body(self.target.encode)
        try:
            with only_own_cancellation(of="a batch"):
                if self._recorder:
                    await self._recorder.deliver(batch, body, self._send)
                else:
                    await self._send(batch, body)
        except BaseException as error:
            batch.let_split(False)
            emit(self._hook, _event(batch, batch.fate, error, was_in_doubt=was_in_doubt))
            raise
        emit(self._hook, _event(batch, batch.fate, batch.refused, was_in_doubt=was_in_doubt))

    async def _send(self, batch: Batch, body: bytes) -> None:
        guests = self._guests(batch, body)
        batch.forget_payload(keep_values=self._keep_values)
        try:
            request = wire.issue_rewards(body, batch.key)
            await self._transport.deliver(request, batch.delivery, lane=self.lane)
        except BadRequestError as error:
            batch.refuse(error)
        finally:
            if job := batch.delivery.job:
                batch.accepted(self.target.accepted(batch.positions, job, guests))

    def _guests(self, batch: Batch, body: bytes) -> Guests | None:
        """What is kept of the guests, so that an event can tell the outcome."""
        jobs = self.target.jobs
        return jobs.guests(batch.values_in(body)) if jobs.trust.is_active else None


def _event(
    batch: Batch, fate: BatchFate, error: BaseException | None = None, *, was_in_doubt: bool
) -> BatchEvent:
    """The record for a hook.

    Args:
        batch: the batch.
        fate: ``SENDING`` before the delivery, ``batch.fate`` after it.
        error: the error that ended the delivery.
        was_in_doubt: the batch was in doubt before the delivery.
    """
    return BatchEvent(
        run_id=batch.run_id,
        number=batch.number,
        idempotency_key=batch.key,
        count=len(batch.positions),
        fate=fate,
        seconds=asyncio.get_running_loop().time() - batch.since,
        job_id=batch.job_id,
        error=None if error is None else type(error).__name__,
        was_in_doubt=was_in_doubt,
        callers=batch.callers,
    )

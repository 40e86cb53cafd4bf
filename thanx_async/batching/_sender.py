"""Sends one batch: records it if there is a ledger, tells the hook, and leaves its fate known in any case."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from thanx_async._core.errors import BadRequestError
from thanx_async._core.tasks import only_own_cancellation
from thanx_async.batching._batch import Batch
from thanx_async.batching._target import Target
from thanx_async.http import Transport, wire
from thanx_async.instrumentation import BatchFate, Hook, emit
from thanx_async.limiter import RateLimiter, in_flight

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
    ) -> None:
        self.target = target
        self.limiter = limiter
        self._recorder = recorder
        self._transport = transport
        self._hook = hook
        self._max_concurrency = max_concurrency
        self._keep_values = keep_values

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
        emit(self._hook, batch.event(BatchFate.SENDING))
        body = batch.body(self.target.encode)
        try:
            with only_own_cancellation(of="a batch"):
                if self._recorder:
                    await self._recorder.deliver(batch, body, self._send)
                else:
                    await self._send(batch, body)
        except BaseException as error:
            emit(self._hook, batch.event(batch.fate, error))
            raise
        emit(self._hook, batch.event(batch.fate, batch.refused))

    async def _send(self, batch: Batch, body: bytes) -> None:
        batch.forget_payload(keep_values=self._keep_values)
        try:
            await self._transport.deliver(wire.issue_rewards(body, batch.key), batch.delivery)
        except BadRequestError as error:
            batch.refuse(error)
        finally:
            if job := batch.delivery.job:
                batch.accepted(self.target.accepted(batch.positions, job))

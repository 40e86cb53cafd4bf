"""Sending one batch: recorded if there is a ledger, told to the hook, its fate known whatever happens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from thanx_async._core.errors import BadRequestError
from thanx_async._core.tasks import only_own_cancellation
from thanx_async.batching._batch import Batch
from thanx_async.batching._target import Target
from thanx_async.http import Transport, wire
from thanx_async.instrumentation import BatchFate, Hook, emit
from thanx_async.limiter import RateLimiter, in_flight

if TYPE_CHECKING:
    from thanx_async.batching._recorder import Recorder


class BatchSender:
    """Sends the batches of one batcher.

    Args:
        max_concurrency: requests at once; None for as many as the rate limits and the latency call for.
        keep_values: keep the identifiers of a batch once it is with the transport.
    """

    def __init__(
        self,
        target: Target,
        transport: Transport,
        limiter: RateLimiter,
        hook: Hook,
        recorder: Recorder | None,
        *,
        max_concurrency: int | None,
        keep_values: bool,
    ) -> None:
        self.target = target
        self.limiter = limiter
        self.recorder = recorder
        self._transport = transport
        self._hook = hook
        self._max_concurrency = max_concurrency
        self._keep_values = keep_values

    @property
    def concurrency(self) -> int:
        """Requests that may be under way at once: the rate times the latency (Little's law), and one more."""
        if self._max_concurrency is not None:
            return self._max_concurrency
        return in_flight(self.limiter.limits, self.limiter.status().latency)

    async def deliver(self, batch: Batch) -> None:
        """Send one batch, recorded in the ledger if there is one (which must have its run claimed).

        Whatever happens, the batch and the ledger know its fate afterwards.

        Raises:
            ThanxError: what should stop the run.
        """
        emit(self._hook, batch.event(BatchFate.SENDING))
        body = batch.body(self.target.encode)
        try:
            with only_own_cancellation(of="a batch"):
                if self.recorder:
                    await self.recorder.deliver(batch, body, self._send)
                else:
                    await self._send(batch, body)
        except BaseException as error:
            emit(self._hook, batch.event(batch.fate, error))
            raise
        emit(self._hook, batch.event(batch.fate, batch.refused))

    async def _send(self, batch: Batch, body: bytes) -> None:
        batch.going_out(keep_values=self._keep_values)
        try:
            await self._transport.deliver(wire.issue_rewards(body, batch.key), batch.delivery)
        except BadRequestError as error:
            batch.refuse(error)
        finally:
            if job := batch.delivery.job:
                batch.accepted(self.target.accepted(batch.positions, job))

"""`LaneSender`, which sends the batches of one lane with a client."""

from __future__ import annotations

from typing import TYPE_CHECKING

from thanx_async._core.errors import (
    APIError,
    AuthenticationError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitedError,
    ThanxError,
    TransportError,
    UnprocessableError,
)
from thanx_async.batching import Batch, BatchSender, Target
from thanx_async.client import internals
from thanx_async.http import CutTurns
from thanx_async.ledger import LaneLedger, RunRecord
from thanx_async.limiter import Lane
from thanx_async.outbox._recorder import LaneRecorder

if TYPE_CHECKING:
    from thanx_async.client import ThanxClient

_REFUSALS = (AuthenticationError, PermissionDeniedError, NotFoundError, UnprocessableError)
"""What Thanx answers to every batch alike, or to a key that it knows with other guests."""


class LaneSender:
    """Sends the batches of one lane with a client.

    Attributes:
        target: what the lane issues.
        recorder: records what becomes of each batch.
        turns: the turns in which the client's lanes cut batches.
    """

    def __init__(self, ledger: LaneLedger, lane: RunRecord, client: ThanxClient) -> None:
        transport, jobs = internals(client)
        self.target = Target(lane.campaign_id, lane.merchant_id, lane.variant_id, jobs)
        self.recorder = LaneRecorder(ledger, self.target)
        self.limiter = client.limiter
        self.turns: CutTurns = transport.turns
        self._sender = BatchSender(
            self.target,
            transport,
            client.limiter,
            client.hook,
            self.recorder,
            max_concurrency=None,
            keep_values=False,
            lane=Lane.INTERACTIVE,
        )

    def check_loop(self) -> None:
        """Make sure that the client is not open on another event loop."""
        self._sender.check_loop()

    @property
    def concurrency(self) -> int:
        """Requests allowed in flight."""
        return self._sender.concurrency

    async def attempt(self, batch: Batch) -> ThanxError | None:
        """Send a batch, for as long as the client is patient.

        Returns:
            The error after which it makes sense to try again: Thanx did not answer, or is overloaded.

        Raises:
            ThanxError: any other error. A `BadRequestError` that blames one guest is not raised.
        """
        try:
            await self._sender.deliver(batch)
        except (TransportError, RateLimitedError) as error:
            return error
        except _REFUSALS:
            raise
        except APIError as error:
            if not batch.is_in_doubt:
                raise
            return error
        if batch.refused is not None and batch.settled and not batch.blames_one_guest:
            raise batch.refused
        return batch.refused if batch.is_in_doubt else None

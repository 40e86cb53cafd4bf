"""`LaneFollower`, which waits for the jobs of a lane and records their outcomes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from thanx_async._core.errors import ThanxError
from thanx_async._core.escaping import get_logger
from thanx_async.batching import Batch
from thanx_async.jobs import JobHandle
from thanx_async.ledger import LaneLedger
from thanx_async.outbox._lane_guard import LaneGuard
from thanx_async.outbox._trust import LaneTrust

_log = get_logger("thanx_async.outbox")

_ASKS_AGAIN = 60.0


class LaneFollower:
    """Follows the accepted batches of a lane while this process drains it.

    Args:
        ledger: the ledger, where the lane is claimed.
        trust: the trust in events that tell outcomes.
        guard: learns of the outcomes.
        hold: gives a batch up until it is settled by hand, for a reason.
        until_empty: give a job up that Thanx refuses to tell of.

    Attributes:
        error: why a job was given up, None if none was.
    """

    def __init__(
        self,
        ledger: LaneLedger,
        trust: LaneTrust,
        guard: LaneGuard,
        hold: Callable[[Batch, str], Awaitable[None]],
        *,
        until_empty: bool,
    ) -> None:
        self.error: ThanxError | None = None
        self._ledger = ledger
        self._trust = trust
        self._guard = guard
        self._hold = hold
        self._until_empty = until_empty

    async def follow(self, batch: Batch, handle: JobHandle) -> None:
        """Wait until the job has ended, and record the outcomes."""
        while not batch.recorded:
            if not await self._has_ended(handle):
                return
            if batch.is_unclear:
                await self._hold(batch, f"job {handle.id} has ended without telling who has a reward")
                return
            await self._record(batch)
        await self._trust.share()
        self._guard.ended(batch)

    async def _record(self, batch: Batch) -> None:
        """Record the outcomes, unless they are not known any more: an event told them."""
        if batch.settled:
            outcome = batch.outcome()
            await self._ledger.finish(batch.run_id, {batch.number: outcome})
            batch.settle_from_job()
            batch.mark_recorded(outcome)

    async def _has_ended(self, handle: JobHandle) -> bool:
        """Wait until the job has ended. While Thanx refuses to tell, ask again from time to time.

        Returns:
            Whether it has ended; a drain that is meant to end does not ask again, and fails at its end.
        """
        while True:
            try:
                await handle.wait()
            except ThanxError as error:
                _log.error("job %s cannot be followed: %s", handle.id, type(error).__name__)
                if self._until_empty:
                    self.error = error
                    return False
                await asyncio.sleep(_ASKS_AGAIN)
            else:
                return True

"""`LaneGuard`, which applies a guard to the batches of a lane."""

from __future__ import annotations

from collections.abc import Collection

from thanx_async._core.errors import GuardError
from thanx_async.batching import Batch, Guard, check_failures
from thanx_async.identifiers import MAX_BATCH
from thanx_async.ledger import LaneLedger


class LaneGuard:
    """Limits the batches of a lane while this process drains it.

    Args:
        guard: the limits.
        ledger: knows how many rewards the lane has issued.
        run_id: the lane.
    """

    def __init__(self, guard: Guard, ledger: LaneLedger, run_id: str) -> None:
        self._guard = guard
        self._ledger = ledger
        self._run_id = run_id
        self._canary: Batch | None = None
        self._failed = self._ended = 0

    async def size_allowed(self, open_batches: Collection[Batch]) -> int:
        """How many guests may be in the next batch; 0 for none yet.

        Raises:
            GuardError: none any more.
        """
        guard, size, canary = self._guard, MAX_BATCH, self._canary
        if canary in open_batches:
            return 0
        if canary is not None and canary.handle is None and not canary.settled:
            canary = self._canary = None  # its guests wait again
        if guard.canary is not None and canary is None:
            size = guard.canary
        elif canary is not None and not canary.settled:
            raise GuardError("the outcome of the canary's guests cannot be told, so nothing more is sent")
        if guard.max_rewards is not None:
            rewards = await self._ledger.rewards(self._run_id)
            size = min(size, guard.max_rewards - rewards)
            if size <= 0 and not open_batches:
                raise GuardError(
                    f"max_rewards is {guard.max_rewards:,}: {rewards:,} guests may have a reward"
                )
        return max(0, size)

    def started(self, batch: Batch) -> None:
        """Take in a batch that was cut; the first one is the canary."""
        if self._guard.canary is not None and self._canary is None:
            self._canary = batch

    def ended(self, batch: Batch) -> None:
        """Take in a batch whose outcome is known.

        Raises:
            GuardError: too many guests have failed.
        """
        self._failed += len(batch.rows)
        self._ended += len(batch.positions)
        check_failures(self._guard, failed=self._failed, ended=self._ended)

"""The trust in webhook events while a lane is drained, shared with other processes through the ledger."""

from __future__ import annotations

import attrs

from thanx_async.batching import share_trust
from thanx_async.jobs import EventTrust, JobRegistry
from thanx_async.ledger import BatchOutcome, BatchRecord, BatchState, LaneLedger, RunRecord


class LaneTrust:
    """The trust in the events of a lane's credential.

    Args:
        ledger: the ledger, where the lane is claimed.
        lane: the lane.
        trust: the trust of the client that drains it.
    """

    def __init__(self, ledger: LaneLedger, lane: RunRecord, trust: EventTrust) -> None:
        self._ledger = ledger
        self._lane = lane
        self._trust = trust
        self._has_doubted = False

    async def learn(self) -> None:
        """Take in what other processes know, if this one may believe events."""
        if self._trust.is_active:
            await share_trust(self._ledger, self._trust, self._lane)

    async def share(self) -> None:
        """Record what was learned."""
        if self._trust.has_news:
            await share_trust(self._ledger, self._trust, self._lane)

    async def take_relayed(self, jobs: JobRegistry) -> None:
        """Take in what events told of the lane's jobs at other processes."""
        if self._trust.is_active:
            for job in await self._ledger.relayed(self._lane.run_id):
                jobs.relayed(job)

    async def doubted(self) -> list[tuple[BatchRecord, BatchOutcome]]:
        """The batches whose outcome an event has told, once events are no longer believed.

        Each is told once: as an accepted batch, and with the outcome.
        """
        if self._has_doubted or not self._trust.known.broken:
            return []
        self._has_doubted = True
        return [
            (attrs.evolve(record, state=BatchState.ACCEPTED, outcome=None), record.outcome)
            for record in await self._ledger.told_batches(self._lane.run_id)
            if record.outcome is not None
        ]

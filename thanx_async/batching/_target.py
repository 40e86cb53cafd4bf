"""The campaign, merchant and variant that a batcher issues; encodes request bodies and makes job handles."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from thanx_async._batches import Positions
from thanx_async.http import wire
from thanx_async.jobs import JobHandle, JobRegistry
from thanx_async.models import IssuanceJob

if TYPE_CHECKING:
    from thanx_async.ledger import BatchRecord


@attrs.frozen
class Target:
    """The variant to issue, and the registry that follows its jobs."""

    campaign_id: str
    merchant_id: str
    variant_id: str
    jobs: JobRegistry = attrs.field(repr=False)

    @property
    def ids(self) -> tuple[str, str, str]:
        """Campaign, merchant and variant."""
        return self.campaign_id, self.merchant_id, self.variant_id

    def encode(self, values: list[str]) -> bytes:
        """The request body for these identifiers."""
        return wire.issue_body(*self.ids, values)

    def accepted(self, positions: Positions, job: IssuanceJob) -> JobHandle:
        """The handle on a job that Thanx has just accepted.

        Args:
            positions: the batch's positions in the input.
            job: the job from Thanx's answer.
        """
        return self.jobs.accepted(
            job, merchant_id=self.merchant_id, start=positions.first, total=len(positions)
        )

    def recorded(self, record: BatchRecord) -> JobHandle | None:
        """The handle on the job of a recorded batch, with the recorded outcome as its snapshot."""
        if record.job_id is None:
            return None
        if job := record.job():
            return self.accepted(record.positions, job)
        first, total = record.positions.first, len(record.positions)
        return self.jobs.handle(record.job_id, self.merchant_id, start=first, total=total)

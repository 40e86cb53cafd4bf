"""The campaign, merchant and variant that a batcher issues; encodes request bodies and makes job handles."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import attrs

from thanx_async._batches import Positions
from thanx_async.http import wire
from thanx_async.jobs import Guests, JobHandle, JobRegistry
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

    def accepted(self, positions: Positions, job: IssuanceJob, guests: Guests | None = None) -> JobHandle:
        """The handle on a job that Thanx has just accepted.

        Args:
            positions: the batch's positions in the input.
            job: the job from Thanx's answer.
            guests: the batch's guests, None if they are not known.
        """
        return self.jobs.accepted(
            job, merchant_id=self.merchant_id, start=positions.first, total=len(positions), guests=guests
        )

    def recorded(self, record: BatchRecord) -> JobHandle | None:
        """The handle on the job of a recorded batch, with the recorded outcome as its snapshot."""
        if record.job_id is None:
            return None
        job = record.job() or IssuanceJob(
            record.job_id, "accepted", created_at=datetime.fromtimestamp(record.recorded_at, UTC)
        )
        first, total = record.positions.first, len(record.positions)
        return self.jobs.recorded(job, merchant_id=self.merchant_id, start=first, total=total)

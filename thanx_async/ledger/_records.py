"""The records of a ledger, as frozen classes: runs, batches, and the progress of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from enum import StrEnum
from time import time

import attrs

from thanx_async._batches import BatchOutcome, Positions
from thanx_async._core.messages import Message, Name
from thanx_async.models import IssuanceFailures, IssuanceJob, JobSummary

TOO_OLD = "too old to send again"
"""Why a batch in doubt is held whose key Thanx may have forgotten."""


class BatchState(StrEnum):
    """The state of a batch, which only moves forward."""

    IN_DOUBT = "in_doubt"
    ACCEPTED = "accepted"
    FINISHED = "finished"


@attrs.frozen
class BatchRecord:
    """A recorded batch.

    ``digest`` identifies the body; ``recorded_at`` is in seconds since 1970. ``held`` says why the process
    that drained the batch's lane has given the batch up.
    """

    run_id: str
    number: int
    key: str
    positions: Positions
    digest: bytes = attrs.field(repr=False)
    state: BatchState = BatchState.IN_DOUBT
    recorded_at: float = 0.0
    job_id: str | None = None
    outcome: BatchOutcome | None = None
    held: str | None = None

    def held_because(self, replay_within: float) -> str | None:
        """Why nothing more is done for the batch before it is settled by hand; None if it is not held.

        Args:
            replay_within: the age, in seconds, after which it is not sent again automatically.
        """
        if self.state is BatchState.FINISHED:
            return None
        too_old = self.state is BatchState.IN_DOUBT and self.is_older_than(replay_within)
        return self.held or (TOO_OLD if too_old else None)

    def is_older_than(self, seconds: float) -> bool:
        """Whether the batch was recorded more than ``seconds`` seconds ago."""
        return time() - self.recorded_at > seconds

    def job(self) -> IssuanceJob | None:
        """The final state of the batch's job, as far as recorded; None while the job is running."""
        if self.job_id is None or self.outcome is None:
            return None
        outcome, count = self.outcome, len(self.positions)
        failures = IssuanceFailures(outcome.failures.mapped(lambda reason: ("", reason)))
        return IssuanceJob(
            id=self.job_id,
            state=outcome.state,
            total_count=count,
            processed_count=count,
            success_count=outcome.issued,
            failure_count=len(failures),
            progress_percent=100,
            summary=JobSummary(outcome.issued, len(failures), failures),
            by_event=outcome.by_event,
        )


@attrs.frozen
class RunRecord:
    """A recorded run: what it issues, and how its input is cut. Times are in seconds since 1970.

    ``total``, the number of items in the input, and ``batches``, the number of batches, are None until the
    input has been read to its end. ``keep_ids`` and ``replay_within``, in seconds, are the settings of
    a lane; None for any other run.
    """

    run_id: str
    base_url: str
    client_id: str
    campaign_id: str
    merchant_id: str
    variant_id: str
    batch_size: int
    deduplicate: bool
    canary: int | None = None
    created_at: float = 0.0
    changed_at: float = 0.0
    total: int | None = None
    batches: int | None = None
    revoked_at: float | None = None
    keep_ids: float | None = None
    replay_within: float | None = None

    @property
    def target(self) -> tuple[str, str, str]:
        """Campaign, merchant and variant."""
        return self.campaign_id, self.merchant_id, self.variant_id

    def replayed_within(self, otherwise: float) -> float:
        """The age, in seconds, after which a batch in doubt is not sent again automatically.

        Args:
            otherwise: the age for runs that have no setting of their own.
        """
        return otherwise if self.replay_within is None else self.replay_within

    def differences(self, other: RunRecord) -> list[str]:
        """The differences between the settings of two runs, each in words."""
        return [
            Message(Name(name), f" {getattr(self, name)!r} instead of {getattr(other, name)!r}")
            for name in _IDENTITY
            if getattr(self, name) != getattr(other, name)
        ]

    def would_change(self, known: RunRecord) -> bool:
        """Whether this record may replace a known one without batches, as after a wrong campaign."""
        return known.revoked_at is None and bool(self.differences(known) or self.canary != known.canary)

    def is_complete(self, batches: Iterable[BatchRecord]) -> bool:
        """Whether the whole input was sent and all batches are finished; never if nothing was sent."""
        states = [batch.state for batch in batches]
        is_sent = bool(states) and len(states) == self.batches
        return is_sent and all(state is BatchState.FINISHED for state in states)


@attrs.frozen
class RunProgress:
    """The progress of a run: the number of batches in each state, and of rewards (``issued``).

    ``to_take_back`` is the number of jobs left to revoke: all but revoked jobs and jobs without rewards.
    """

    run: RunRecord
    in_doubt: int
    accepted: int
    finished: int
    issued: int
    to_take_back: int

    @classmethod
    def of(cls, run: RunRecord, batches: Iterable[BatchRecord]) -> RunProgress:
        """The progress, counted from the batches of a run."""
        rows = list(batches)
        counts = Counter(row.state for row in rows)
        return cls(
            run,
            in_doubt=counts[BatchState.IN_DOUBT],
            accepted=counts[BatchState.ACCEPTED],
            finished=counts[BatchState.FINISHED],
            issued=sum(row.outcome.issued for row in rows if row.outcome),
            to_take_back=sum(map(_is_to_take_back, rows)),
        )

    @property
    def is_complete(self) -> bool:
        """Whether the whole input was sent and all batches are finished; never if nothing was sent."""
        return 0 < self.finished == self.run.batches and not self.in_doubt and not self.accepted


def _is_to_take_back(batch: BatchRecord) -> bool:
    outcome = batch.outcome
    return batch.job_id is not None and not (outcome and (outcome.state == "revoked" or not outcome.issued))


_IDENTITY = (
    "base_url",
    "client_id",
    "campaign_id",
    "merchant_id",
    "variant_id",
    "batch_size",
    "deduplicate",
)

"""What an outbox tells: the outcome of one guest, and its own status."""

from __future__ import annotations

import attrs

from thanx_async.ledger import Fate, GuestState, LaneReport

_FINAL = {
    GuestState.HELD,
    GuestState.ISSUED,
    GuestState.FAILED,
    GuestState.CANCELLED,
    GuestState.REJECTED,
}


@attrs.frozen
class GuestOutcome:
    """The outcome of a guest, as far as it is known.

    Attributes:
        id: the id under which the guest was put.
        state: see `GuestState`.
        reason: why the guest failed, was rejected, is held, or was cancelled because the outbox was revoked;
            None otherwise.
        job_id: the job of the guest's batch, None before Thanx has accepted the batch.
        idempotency_key: the key of the guest's batch, None before the guest is in one.
        by_event: a webhook told the outcome, and no poll has confirmed it (`Events.OUTCOME`).
    """

    id: str
    state: GuestState
    reason: str | None = None
    job_id: str | None = None
    idempotency_key: str | None = None
    by_event: bool = False

    @property
    def issued(self) -> bool:
        """Whether the guest has the reward."""
        return self.state is GuestState.ISSUED

    @property
    def is_final(self) -> bool:
        """Whether the outbox itself does nothing more for the guest."""
        return self.state in _FINAL

    @classmethod
    def of(cls, id: str, fate: Fate) -> GuestOutcome:
        """The outcome of the guest with this id."""
        batch = fate.batch
        return cls(
            id,
            fate.state,
            fate.reason,
            None if batch is None else batch.job_id,
            None if batch is None else batch.key,
            bool(batch and batch.outcome and batch.outcome.by_event),
        )


@attrs.frozen
class OutboxStatus:
    """The status of an outbox, such as for a health check.

    Attributes:
        waiting: the number of guests who wait to be sent.
        oldest: for how many seconds the oldest of them has waited; 0 if nobody waits.
        in_doubt: the number of batches that were sent without an answer yet, and are sent again.
        held: the number of batches to settle by hand: in doubt and not sent again, or with a job that has
            ended without telling who has a reward.
        accepted: the number of batches whose jobs are running.
        drained_by: the process that drains the outbox; None if none does.
        paused: why nothing is sent at the moment: the limits, or for a day the error that has ended the last
            drain. None if nothing is in the way.
    """

    waiting: int
    oldest: float
    in_doubt: int
    held: int
    accepted: int
    drained_by: str | None
    paused: str | None

    @classmethod
    def of(cls, report: LaneReport) -> OutboxStatus:
        """The status of a lane."""
        return cls(
            report.waiting,
            report.waited,
            report.in_doubt,
            report.held,
            report.accepted,
            report.owner,
            report.note,
        )

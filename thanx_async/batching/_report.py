"""The reports of a run, of a revocation and of a closed batcher: counts, guest rows and batch ranges."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import attrs

from thanx_async.models import counted


@attrs.frozen
class GuestRow:
    """One guest without a reward, and the reason.

    Attributes:
        position: the guest's place in the input, from 0.
        identifier: the guest's identifier, None unless values are kept.
        reason: why the guest got no reward.
        job_id: the guest's job, None if there is none.
    """

    position: int
    identifier: str | None = attrs.field(repr=False)
    reason: str
    job_id: str | None = None


@attrs.frozen
class BatchRange:
    """One batch: its place in the input, its idempotency key and its job.

    Attributes:
        first: the position of the first identifier in the input, from 0.
        last: the position of the last one.
        count: the number of identifiers; positions between ``first`` and ``last`` may be left out.
        key: the idempotency key, None if the batch was not cut yet.
        job_id: the job, None unless Thanx has accepted the batch.
    """

    first: int
    last: int
    count: int
    key: str | None = None
    job_id: str | None = None


@attrs.frozen
class IssuanceReport:
    """The outcome of a run: a number for issued rewards, rows for guests, ranges for batches.

    Rows are made when they are read.

    Attributes:
        run_id: the id of the run.
        total: items read from the input.
        issued: rewards issued.
        failed: guests who were sent and got no reward, and why.
        rejected: input items that are not valid identifiers.
        duplicates: input items that repeat an earlier guest.
        unsent: batches that Thanx has certainly not accepted.
        in_doubt: batches that may or may not have been issued.
        unfinished: batches whose jobs are still running.
    """

    run_id: str
    total: int
    issued: int
    failed: Sequence[GuestRow] = attrs.field(repr=counted)
    rejected: Sequence[GuestRow] = attrs.field(repr=counted)
    duplicates: Sequence[GuestRow] = attrs.field(repr=counted)
    unsent: list[BatchRange] = attrs.field(repr=counted)
    in_doubt: list[BatchRange] = attrs.field(repr=counted)
    unfinished: list[BatchRange] = attrs.field(repr=counted)

    @property
    def counts(self) -> dict[str, int]:
        """The number of items for each fate; the values always sum to ``total``."""
        return {
            "issued": self.issued,
            "failed": len(self.failed),
            "rejected": len(self.rejected),
            "duplicates": len(self.duplicates),
            "unsent": _count(self.unsent),
            "in_doubt": _count(self.in_doubt),
            "unfinished": _count(self.unfinished),
        }


@attrs.frozen
class NotRevoked:
    """A batch whose rewards could not be revoked, and the reason."""

    batch: BatchRange
    reason: str


@attrs.frozen
class RevocationReport:
    """The result of a revocation.

    Attributes:
        run_id: the id of the run.
        rewards: the number of rewards revoked by this call.
        revoked: the batches whose jobs are revoked.
        not_revoked: the batches that could not be revoked.
    """

    run_id: str
    rewards: int
    revoked: list[BatchRange] = attrs.field(repr=counted)
    not_revoked: list[NotRevoked] = attrs.field(repr=counted)


@attrs.frozen
class NotVerified:
    """A batch whose outcome a poll has not confirmed, and the reason."""

    batch: BatchRange
    reason: str


@attrs.frozen
class VerificationReport:
    """The result of a verification of what events told (`Events.OUTCOME`).

    Attributes:
        run_id: the id of the run.
        confirmed: the batches whose outcome a poll has confirmed.
        disagreeing: the batches of which an event told something else than a poll. The poll stands.
        unchecked: the batches that could not be compared.
    """

    run_id: str
    confirmed: list[BatchRange] = attrs.field(repr=counted)
    disagreeing: list[NotVerified] = attrs.field(repr=counted)
    unchecked: list[NotVerified] = attrs.field(repr=counted)


@attrs.frozen
class BatchInDoubt:
    """A batch that was sent without an answer.

    `ThanxClient.issue_rewards` with the same identifiers and idempotency key settles it: Thanx issues nothing
    twice.
    """

    idempotency_key: str
    identifiers: tuple[str, ...] = attrs.field(repr=counted)


@attrs.frozen
class CloseReport:
    """The guests without an answer when a batcher closed; both fields are empty if Thanx answered for all.

    The callers of `AsyncBatcher.add` have been told the same.

    Attributes:
        unsent: guests who were not sent, or whose batch failed and is not in doubt.
        in_doubt: batches that were sent without an answer.
    """

    unsent: tuple[str, ...] = attrs.field(repr=counted)
    in_doubt: tuple[BatchInDoubt, ...]


def _count(batches: Iterable[BatchRange]) -> int:
    return sum(batch.count for batch in batches)

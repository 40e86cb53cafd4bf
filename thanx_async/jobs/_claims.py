"""Decides whether an event tells the outcome of a job, from what was sent in the job. Pure.

An event names the guests who failed by their identifiers. Neither these nor the guests of the batch are kept:
both are compared by hashes that are valid in this process only.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import attrs

from thanx_async._batches import EndedJob, outcome_of
from thanx_async._core.columns import Numbered
from thanx_async._decoding import masked
from thanx_async.identifiers import normalise_all, type_of
from thanx_async.models import IssuanceFailures, IssuanceJob, JobSummary, counted

if TYPE_CHECKING:
    from thanx_async.webhooks import RewardBatchCompleted

_TOLERANCE = timedelta(seconds=5)


@attrs.frozen
class Guests:
    """The guests of a batch in order, eight bytes each."""

    _hashes: array[int] = attrs.field(repr=counted)

    @classmethod
    def of(cls, values: Iterable[str]) -> Guests:
        """From the normalized identifiers of a batch."""
        return cls(array("q", map(hash, values)))

    def places(self, hashes: Sequence[int]) -> list[int] | None:
        """The index of each guest; None unless each is in the batch exactly once, and named once."""
        wanted = set(hashes)
        found = {value: index for index, value in enumerate(self._hashes) if value in wanted}
        if len(found) < len(hashes) or sum(map(wanted.__contains__, self._hashes)) > len(found):
            return None
        return [found[value] for value in hashes]


@attrs.frozen
class Claim:
    """What an event tells of a job's end, without the identifiers of guests.

    Attributes:
        failures: a hash of each guest who failed, ascending, with the identifier's type and the reason.
        unreadable: guests who failed and whose identifier cannot be read.
        timestamp: when Thanx made the event. A repetition may have another one.
    """

    state: str
    merchant_id: str | None
    total: int
    issued: int
    failed: int
    failures: Numbered[tuple[str, str]] = attrs.field(repr=counted)
    unreadable: int
    timestamp: datetime | None = attrs.field(eq=False)

    @classmethod
    def of(cls, event: RewardBatchCompleted) -> Claim:
        """What this event tells."""
        reasons = {reason: masked(reason) for reason in {row.reason for row in event.failures}}
        values, refused = normalise_all([row.user_identifier for row in event.failures])
        failures = sorted(
            (hash(value), (type_of(value).value, reasons[row.reason]))
            for value, row in zip(values, event.failures, strict=True)
            if value
        )
        return cls(
            event.state,
            event.merchant_id,
            event.total_count,
            event.issued_count,
            event.failed_count,
            Numbered.of(failures),
            len(refused),
            event.timestamp,
        )

    @classmethod
    def relayed(cls, job: EndedJob) -> Claim:
        """What an event told another process: nothing of the guests who failed but their number."""
        nobody: Numbered[tuple[str, str]] = Numbered.of(())
        return cls(
            job.state, job.merchant_id, job.total, job.issued, job.failed, nobody, job.failed, job.timestamp
        )


@attrs.frozen
class Sent:
    """What was sent in a job that Thanx has accepted.

    Attributes:
        job: the job as accepted. Its ``created_at`` is a lower bound if the job was recorded by an earlier
            process.
        merchant_id: the merchant of the request.
        total: the number of guests.
        guests: the guests, None if they are no longer known.
    """

    job: IssuanceJob
    merchant_id: str
    total: int
    guests: Guests | None = attrs.field(default=None, repr=False)


def weighed(claim: Claim, sent: Sent) -> IssuanceJob | str:
    """The finished job, as a poll should tell it; or why the event alone does not tell the outcome."""
    if reason := mismatch(claim, sent):
        return reason
    failures = _placed(claim, sent.guests)
    if failures is None:
        return "it names guests who are not in the batch exactly once, or the batch's guests are not known"
    return attrs.evolve(
        sent.job,
        state="completed",
        total_count=sent.total,
        processed_count=sent.total,
        success_count=claim.issued,
        failure_count=claim.failed,
        progress_percent=100,
        completed_at=claim.timestamp,
        summary=JobSummary(claim.issued, claim.failed, failures),
        is_counted=True,
        by_event=True,
    )


def mismatch(claim: Claim, sent: Sent) -> str | None:
    """Why the event cannot tell the job's outcome, whoever the guests are; None if it can."""
    created_at = sent.job.created_at
    if claim.state != "completed":
        return f"the state is {claim.state!r}"
    if claim.merchant_id not in {None, sent.merchant_id}:
        return "it is about another merchant"
    if created_at is None or claim.timestamp is None or claim.timestamp < created_at - _TOLERANCE:
        return "it is not known to be younger than the job"
    if claim.total != sent.total or claim.issued + claim.failed != claim.total:
        return "its counts do not add up to the guests of the batch"
    if len(claim.failures) + claim.unreadable != claim.failed:
        return "it does not name as many failures as it counts"
    return "it names guests by something else than their identifiers" if claim.unreadable else None


def _placed(claim: Claim, guests: Guests | None) -> IssuanceFailures | None:
    if not claim.failures:
        return IssuanceFailures()
    places = guests.places([number for number, _ in claim.failures]) if guests is not None else None
    if places is None:
        return None
    return IssuanceFailures(sorted(zip(places, (row for _, row in claim.failures), strict=True)))


def difference(told: IssuanceJob, polled: IssuanceJob) -> str | None:
    """In what a job as an event told it differs from the finished job as polled.

    Empty if they agree; None if the poll does not tell who got a reward, so that they cannot be compared.
    """
    if told.state != polled.state:
        return f"the state is {polled.state}, not {told.state}"
    if polled.is_counted and (polled.summary or polled).success_count != told.success_count:
        return "the number of rewards is another one"
    ours, theirs = outcome_of(told, told.total_count), outcome_of(polled, told.total_count)
    if theirs is None or ours is None:
        return None
    if [index for index, _ in ours] != [index for index, _ in theirs]:
        return "other guests have failed"
    return "" if ours == theirs else "the reasons are worded otherwise"

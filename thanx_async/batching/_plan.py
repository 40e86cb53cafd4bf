"""`AsyncBatcher.plan`: counts what a run would send, and how long that takes, without a request."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import attrs

from thanx_async.batching._chunker import Chunker
from thanx_async.batching._eta import eta_of_plan
from thanx_async.batching._report import GuestRow
from thanx_async.batching._source import Source
from thanx_async.limiter import RateLimiter, least_duration
from thanx_async.models import counted


@attrs.frozen
class IssuancePlan:
    """What a run would do, found without a request.

    Attributes:
        total: items in the input.
        identifiers: guests to be issued a reward.
        rejected: input items that are not valid identifiers.
        duplicates: input items that repeat an earlier guest.
        requests: Issue Rewards requests, one for each batch.
        least_duration: minimum seconds under the client's rate limits, with one poll for each job.
        last_accepted: when the last batch could be accepted if the run began now, in UTC, under the limits
            and what is spent of them, as far as this process knows.
        all_known: when all outcomes could be known then, if each job ended at once and took one poll.
    """

    total: int
    identifiers: int
    rejected: Sequence[GuestRow] = attrs.field(repr=counted)
    duplicates: Sequence[GuestRow] = attrs.field(repr=counted)
    requests: int
    least_duration: float
    last_accepted: datetime
    all_known: datetime


async def planned(source: Source, chunker: Chunker, limiter: RateLimiter) -> IssuancePlan:
    """Read the source to its end, and cut its batches without sending them."""
    counts = []
    while await source.fill():
        counts += [len(chunk.values) for chunk in chunker.feed(source.take())]
    counts += [len(chunk.values) for chunk in chunker.flush()]
    eta = eta_of_plan(len(counts), limiter.status())
    return IssuancePlan(
        total=chunker.read,
        identifiers=sum(counts),
        rejected=chunker.rejected,
        duplicates=chunker.duplicates,
        requests=len(counts),
        least_duration=least_duration(2 * len(counts), limiter.limits),
        last_accepted=eta.last_accepted,
        all_known=eta.all_known,
    )

"""What a batcher is made of, checked, and what a run would do, found without a request."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from thanx_async.batching._account import RunAccount
from thanx_async.batching._chunker import Chunker
from thanx_async.batching._report import GuestRow
from thanx_async.batching._source import Source
from thanx_async.limiter import RateLimit, least_duration
from thanx_async.models import counted


@attrs.frozen
class IssuancePlan:
    """What a run would do, found without a request.

    ``requests`` counts the issuing ones; ``least_duration`` is in seconds, under the client's rate limits
    and with one poll for each job.
    """

    total: int
    identifiers: int
    rejected: list[GuestRow] = attrs.field(repr=counted)
    duplicates: list[GuestRow] = attrs.field(repr=counted)
    requests: int
    least_duration: float


async def planned(source: Source, chunker: Chunker, limits: Sequence[RateLimit]) -> IssuancePlan:
    counts = []
    while await source.fill():
        counts += [len(chunk.values) for chunk in chunker.feed(source.take())]
    counts += [len(chunk.values) for chunk in chunker.flush()]
    account = RunAccount("plan", chunker)
    return IssuancePlan(
        total=chunker.read,
        identifiers=sum(counts),
        rejected=account.rejected(),
        duplicates=account.duplicates(),
        requests=len(counts),
        least_duration=least_duration(2 * len(counts), limits),
    )

"""What a batcher is made of, checked, and what a run would do, found without a request."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from thanx_async import _checks
from thanx_async._accounts import IssuanceRun
from thanx_async._chunking import Chunker
from thanx_async._core.errors import ConfigurationError
from thanx_async._guard import Guard
from thanx_async._report import GuestRow
from thanx_async._source import Source
from thanx_async.client import ThanxClient
from thanx_async.identifiers import MAX_BATCH
from thanx_async.limiter import RateLimit, least_duration
from thanx_async.models import counted


def check_run_id(run_id: str | None) -> None:
    if run_id is not None and not _checks.text("run_id", run_id).isprintable():
        raise ConfigurationError("run_id has a character that cannot be shown")


def check_sizes(batch_size: int, max_concurrency: int | None, linger: float, max_waiting: int) -> None:
    _checks.number("batch_size", batch_size, 1, MAX_BATCH, whole=True)
    if max_concurrency is not None:
        _checks.number("max_concurrency", max_concurrency, 1, whole=True)
    _checks.number("linger", linger, 0)
    _checks.number("max_waiting", max_waiting, 1, whole=True)


def check_parts(client: object, guard: object, ledger: object, on_progress: object) -> None:
    _checks.kind("client", isinstance(client, ThanxClient), "a ThanxClient", client)
    _checks.kind("guard", isinstance(guard, Guard), "a Guard, such as Guard(max_rewards=1000)", guard)
    if ledger is not None:
        _checks.has("ledger", ledger, "an open SQLiteLedger(path)", "claim", "record", "accept", "finish")
    if on_progress is not None:
        _checks.kind("on_progress", callable(on_progress), "callable with a run", on_progress)


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
        counts += [len(batch.values) for batch in chunker.feed(source.take())]
    counts += [len(batch.values) for batch in chunker.flush()]
    run = IssuanceRun("plan", chunker)
    return IssuancePlan(
        total=chunker.read,
        identifiers=sum(counts),
        rejected=run.rejected,
        duplicates=run.duplicates,
        requests=len(counts),
        least_duration=least_duration(2 * len(counts), limits),
    )

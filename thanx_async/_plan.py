"""What a batcher is made of, checked, and what a run would do, found without a request."""

from __future__ import annotations

import os
from collections.abc import Sequence
from math import inf

import attrs

from thanx_async._accounts import IssuanceRun
from thanx_async._chunking import Chunker
from thanx_async._guard import Guard
from thanx_async._report import GuestRow
from thanx_async._source import Source
from thanx_async.errors import ConfigurationError
from thanx_async.identifiers import MAX_BATCH
from thanx_async.limiter import RateLimit, least_duration
from thanx_async.models import counted


def check_target(campaign_id: str, merchant_id: str, variant_id: str) -> None:
    for name, text in (
        ("campaign_id", campaign_id),
        ("merchant_id", merchant_id),
        ("variant_id", variant_id),
    ):
        if not text:
            raise ConfigurationError(f"{name} is empty")


def check_run_id(run_id: str | None) -> None:
    if run_id == "":
        raise ConfigurationError("run_id is empty")
    if run_id is not None and not run_id.isprintable():
        raise ConfigurationError("run_id has a character that cannot be shown")


def check_sizes(batch_size: int, max_concurrency: int | None, linger: float, max_waiting: int) -> None:
    for name, value in (("batch_size", batch_size), ("max_waiting", max_waiting)):
        if not isinstance(value, int):
            raise ConfigurationError(f"{name} must be a whole number, not {type(value).__name__}")
    if not 1 <= batch_size <= MAX_BATCH:
        raise ConfigurationError(f"batch_size must be 1 to {MAX_BATCH:,}, not {batch_size}")
    if max_concurrency is not None and max_concurrency < 1:
        raise ConfigurationError(f"max_concurrency must be at least 1, not {max_concurrency}")
    if not 0 <= linger < inf:
        raise ConfigurationError(f"linger must be 0 or more seconds, not {linger}")
    if max_waiting < 1:
        raise ConfigurationError(f"max_waiting must be at least 1, not {max_waiting}")


def check_parts(guard: object, ledger: object, on_progress: object) -> None:
    if not isinstance(guard, Guard):
        raise ConfigurationError("guard must be a Guard, such as Guard(max_rewards=1000)")
    if isinstance(ledger, str | bytes | os.PathLike):
        raise ConfigurationError("ledger must be an open ledger, not a path: use SQLiteLedger(path)")
    if on_progress is not None and not callable(on_progress):
        raise ConfigurationError("on_progress must be callable with a run")


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

"""Any number of guests, in batches: read, cut, sent side by side within the rate limits, accounted for."""

from __future__ import annotations

import math
from collections.abc import AsyncIterable, Callable, Iterable
from uuid import uuid4

import attrs

from thanx_async import wire
from thanx_async._accounts import Entry, IssuanceRun
from thanx_async._chunking import Chunker
from thanx_async._collector import Collector
from thanx_async._outcomes import Outcome
from thanx_async._report import BatchInDoubt, BatchRange, CloseReport, GuestRow, IssuanceReport
from thanx_async._service import MicroBatching
from thanx_async._source import Source
from thanx_async._stream import IssuanceStream
from thanx_async.client import ThanxClient
from thanx_async.errors import BadRequestError, ConfigurationError
from thanx_async.identifiers import MAX_BATCH
from thanx_async.limiter import least_duration
from thanx_async.models import counted

__all__ = [
    "AsyncBatcher",
    "BatchInDoubt",
    "BatchRange",
    "CloseReport",
    "GuestRow",
    "IssuancePlan",
    "IssuanceReport",
    "IssuanceRun",
    "IssuanceStream",
    "Outcome",
]

_MOST_AT_ONCE = 32

Identifiers = Iterable[object] | AsyncIterable[object]


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


class AsyncBatcher(MicroBatching):
    """Issues one reward to each of any number of guests: those of an input with `issue`, or, opened with
    ``async with``, those whom concurrent callers `add`.

    Args:
        client: an open client.
        campaign_id, merchant_id, variant_id: what to issue. Source: Issue Rewards reference page.
        batch_size: identifiers in a request, 1 to 10,000.
        max_concurrency: requests at once; by default as many as the rate limits and the measured latency
            call for, 2 to 32.
        deduplicate: give each guest of a run one reward only; this costs about 100 bytes a guest.
        keep_values: name the guests in the report's rows; without it only positions are kept.
        linger: seconds for which the first guest of a batch waits in `add` for others.
        max_waiting: guests who may wait in `add` to be sent; further callers wait for a place, in order.
        on_progress: called with the run whenever its account has changed.
    """

    def __init__(
        self,
        client: ThanxClient,
        *,
        campaign_id: str,
        merchant_id: str,
        variant_id: str,
        batch_size: int = MAX_BATCH,
        max_concurrency: int | None = None,
        deduplicate: bool = True,
        keep_values: bool = True,
        linger: float = 0.25,
        max_waiting: int = 100_000,
        on_progress: Callable[[IssuanceRun], None] | None = None,
    ) -> None:
        for name, text in (
            ("campaign_id", campaign_id),
            ("merchant_id", merchant_id),
            ("variant_id", variant_id),
        ):
            if not text:
                raise ConfigurationError(f"{name} is empty")
        if not 1 <= batch_size <= MAX_BATCH:
            raise ConfigurationError(f"batch_size must be 1 to {MAX_BATCH:,}, not {batch_size}")
        if max_concurrency is not None and max_concurrency < 1:
            raise ConfigurationError(f"max_concurrency must be at least 1, not {max_concurrency}")
        if not 0 <= linger < math.inf:
            raise ConfigurationError(f"linger must be 0 or more seconds, not {linger}")
        if max_waiting < 1:
            raise ConfigurationError(f"max_waiting must be at least 1, not {max_waiting}")
        self._client = client
        self._merchant_id = merchant_id
        self._target = campaign_id, merchant_id, variant_id
        self._batch_size = batch_size
        self._max_concurrency = max_concurrency
        self._deduplicate = deduplicate
        self._keep_values = keep_values
        self._linger = linger
        self._max_waiting = max_waiting
        self._on_progress = on_progress

    def __repr__(self) -> str:
        service = "" if self._collector is None else f" {self._collector!r}"
        return f"<AsyncBatcher {'/'.join(self._target)} concurrency={self.concurrency}{service}>"

    @property
    def concurrency(self) -> int:
        """Requests that may be under way at once: the rate times the latency (Little's law), and one more."""
        if self._max_concurrency is not None:
            return self._max_concurrency
        limiter = self._client.limiter
        shortest = min(limiter.limits, key=lambda limit: limit.seconds)
        busy = shortest.requests / shortest.seconds * (limiter.status().latency or 0.0)
        return min(_MOST_AT_ONCE, max(2, math.ceil(busy) + 1))

    async def issue(self, identifiers: Identifiers, *, run_id: str | None = None) -> IssuanceRun:
        """Send everything; returns once Thanx has accepted every batch. Then ``await run.wait()``.

        Args:
            identifiers: any iterable or async iterable of what `Identifier.parse` takes. Items that are no
                identifiers become ``rejected`` rows.
            run_id: makes the idempotency keys repeatable: the same input under the same ``run_id`` is not
                issued twice for as long as Thanx keeps its keys.

        Raises:
            BatchError: the run stopped; its ``run`` knows the fate of everything that was read, and its
                cause is what stopped it.
        """
        async with self.stream(identifiers, run_id=run_id) as handles:
            async for _ in handles:
                pass
        return handles.run

    def stream(self, identifiers: Identifiers, *, run_id: str | None = None) -> IssuanceStream:
        """Like `issue`, with the handles as they are accepted, in input order::

            async with batcher.stream(source) as handles:
                async for handle in handles: ...

        A slow consumer slows the reading. Leaving the block stops the run: nothing more is sent, and
        requests under way are finished. ``handles.run`` is the account at every moment.
        """
        if run_id is not None and not run_id:
            raise ConfigurationError("run_id is empty")
        run = IssuanceRun(run_id or uuid4().hex, self._chunker())
        run.on_change(self._on_progress)
        return IssuanceStream(self, run, Source(identifiers))

    async def plan(self, identifiers: Identifiers) -> IssuancePlan:
        """Read and check the input without sending anything."""
        source, chunker = Source(identifiers), self._chunker()
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
            least_duration=least_duration(2 * len(counts), self._client.limiter.limits),
        )

    def _chunker(self) -> Chunker:
        return Chunker(self._batch_size, deduplicate=self._deduplicate, keep_values=self._keep_values)

    def _new_collector(self) -> Collector:
        return Collector(
            self,
            self._client.limiter,
            size=self._batch_size,
            linger=self._linger,
            max_waiting=self._max_waiting,
        )

    async def deliver(self, entry: Entry) -> None:
        """Send one batch; whatever happens, the entry knows its fate afterwards.

        Raises:
            ThanxError: what should stop the run.
        """
        request = wire.issue_rewards(wire.issue_body(*self._target, entry.values or []), entry.key)
        if not self._keep_values:
            entry.values = None
        try:
            await self._client.deliver(request, entry.delivery)
        except BadRequestError as error:
            entry.delivery.refused = error.with_traceback(None)
            if not error.in_doubt:
                entry.refuse(str(error))
        finally:
            if job := entry.delivery.job:
                start, total = entry.positions.first, len(entry.positions)
                entry.handle = self._client.accepted(
                    job, merchant_id=self._merchant_id, start=start, total=total
                )

"""Any number of guests, in batches: read, cut, sent side by side within the rate limits, accounted for."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING
from uuid import uuid4

from thanx_async._core import checks
from thanx_async._core.errors import BadRequestError, ConfigurationError
from thanx_async._core.tasks import only_own_cancellation
from thanx_async._service import MicroBatching
from thanx_async.batching import (
    BatchInDoubt,
    BatchRange,
    Chunker,
    CloseReport,
    Collector,
    Entry,
    Guard,
    GuestRow,
    IssuancePlan,
    IssuanceReport,
    IssuanceRun,
    IssuanceStream,
    NotRevoked,
    Outcome,
    RevocationReport,
    Source,
    planned,
)
from thanx_async.client import ThanxClient
from thanx_async.http import wire
from thanx_async.identifiers import MAX_BATCH
from thanx_async.instrumentation import BatchFate, emit
from thanx_async.limiter import in_flight
from thanx_async.models import check_target

if TYPE_CHECKING:
    from thanx_async.batching._recorder import Journal
    from thanx_async.ledger import Ledger

__all__ = [
    "AsyncBatcher",
    "BatchInDoubt",
    "BatchRange",
    "CloseReport",
    "Guard",
    "GuestRow",
    "IssuancePlan",
    "IssuanceReport",
    "IssuanceRun",
    "IssuanceStream",
    "NotRevoked",
    "Outcome",
    "RevocationReport",
]

Identifiers = Iterable[object] | AsyncIterable[object]


class AsyncBatcher(MicroBatching):
    """Issues one reward to each of any number of guests: those of an input with `issue`, or, opened with
    ``async with``, those whom concurrent callers `add`.

    Args:
        client: an open client.
        campaign_id, merchant_id, variant_id: what to issue. Source: Issue Rewards reference page.
        batch_size: identifiers in a request, 1 to 10,000.
        max_concurrency: requests at once; by default as many as the rate limits and the measured latency
            call for, 2 to 32.
        deduplicate: give each guest of a run one reward only; this costs about 110 bytes a guest, until the
            input has ended.
        keep_values: name the guests in the report's rows; without it only positions are kept.
        guard: how many rewards at most, and how many failures are too many, for each run of `issue`.
        ledger: an open ledger, in which each batch is recorded before it is sent: the same run can be
            started again after a crash, and goes on where it was.
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
        guard: Guard = Guard(),  # noqa: B008 - frozen
        ledger: Ledger | None = None,
        linger: float = 0.25,
        max_waiting: int = 100_000,
        on_progress: Callable[[IssuanceRun], None] | None = None,
    ) -> None:
        check_target(campaign_id, merchant_id, variant_id)
        checks.flags(deduplicate=deduplicate, keep_values=keep_values)
        check_sizes(batch_size, max_concurrency, linger, max_waiting)
        check_parts(client, guard, ledger, on_progress)
        self._client = client
        self._merchant_id = merchant_id
        self._target = campaign_id, merchant_id, variant_id
        self._batch_size = batch_size
        self._max_concurrency = max_concurrency
        self._deduplicate = deduplicate
        self._keep_values = keep_values
        self.guard = guard
        self._journal = None if ledger is None else self._recording(ledger)
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
        return in_flight(limiter.limits, limiter.status().latency)

    async def issue(self, identifiers: Identifiers, *, run_id: str | None = None) -> IssuanceRun:
        """Send everything; returns once Thanx has accepted every batch. Then ``await run.wait()``.

        Args:
            identifiers: any iterable or async iterable of what `Identifier.parse` takes. Items that are no
                identifiers become ``rejected`` rows.
            run_id: makes the idempotency keys repeatable: the same input under the same ``run_id`` is not
                issued twice for as long as Thanx keeps its keys. With a ledger the run goes on where it
                was: what was accepted is not sent again, and what is in doubt is sent with the same key
                and bytes.

        Raises:
            InputChangedError: the ledger has this run with another input; nothing was sent.
            LedgerError: the ledger has this run with other settings, or another process is at it; nothing
                was sent.
            BatchError: the run stopped; its ``run`` knows the fate of everything that was read, and its
                cause is what stopped it.
        """
        return await _seen_through(self.stream(identifiers, run_id=run_id))

    def stream(self, identifiers: Identifiers, *, run_id: str | None = None) -> IssuanceStream:
        """Like `issue`, with the handles as they are accepted, in input order::

            async with batcher.stream(source) as handles:
                async for handle in handles: ...

        A slow consumer slows the reading. Leaving the block stops the run: nothing more is sent, and
        requests under way are finished. ``handles.run`` is the account at every moment.
        """
        check_run_id(run_id)
        run = IssuanceRun(run_id or uuid4().hex, self._chunker())
        if self.guard.canary is not None:
            run.chunker.cut_first_at(self.guard.canary)
        run.on_change(self._on_progress)
        begin = self._journal.begin if self._journal else None
        return IssuanceStream(self, run, Source(identifiers), self.guard, begin)

    async def resume(self, run_id: str, *, replay: bool = True) -> IssuanceRun:
        """Take up a run from the ledger alone, without its input.

        What is in doubt is sent again with the same key and bytes, and the handles are those of all
        recorded batches. What was not recorded, because the run stopped before, needs the input: `issue`.
        The account holds the recorded batches only, and its rows have no values.

        Args:
            replay: without it nothing is sent; what is in doubt is only reported.

        Raises:
            LedgerError: the run is unknown, issues something else, or another process is at it.
            BatchError: as for `issue`.
        """
        return await self._take_up(run_id, replay=replay)

    async def _take_up(self, run_id: str, *, replay: bool = True, decided: bool = True) -> IssuanceRun:
        if self._journal is None:
            raise ConfigurationError(
                "to resume a run, AsyncBatcher needs the ledger that it is recorded in", argument="ledger"
            )
        run = IssuanceRun(run_id, self._chunker())
        run.on_change(self._on_progress)
        recall = partial(self._journal.recall, replay=replay, decided=decided)
        guard = self.guard if decided else Guard()
        return await _seen_through(IssuanceStream(self, run, None, guard, recall))

    async def plan(self, identifiers: Identifiers) -> IssuancePlan:
        """Read and check the input without sending anything."""
        return await planned(Source(identifiers), self._chunker(), self._client.limiter.limits)

    def _chunker(self) -> Chunker:
        return Chunker(self._batch_size, deduplicate=self._deduplicate, keep_values=self._keep_values)

    def _body(self, values: list[str]) -> bytes:
        return wire.issue_body(*self._target, values)

    def _recording(self, ledger: Ledger) -> Journal:
        from thanx_async.batching._recorder import Journal  # what records is not loaded for who does not
        from thanx_async.ledger import RunRecord

        what = self._client.base_url, self._client.client_id, *self._target
        cut = self._batch_size, self._deduplicate, self.guard.canary
        settings = RunRecord("", *what, *cut)
        return Journal(ledger, self._client, settings, self._body, keep_values=self._keep_values)

    def _new_collector(self) -> Collector:
        return Collector(
            self,
            self._client.limiter,
            size=self._batch_size,
            linger=self._linger,
            max_waiting=self._max_waiting,
        )

    async def deliver(self, entry: Entry) -> None:
        """Send one batch, recorded in the ledger if there is one (which must have its run claimed).

        Whatever happens, the entry and the ledger know its fate afterwards.

        Raises:
            ThanxError: what should stop the run.
        """
        emit(self._client.hook, entry.event(BatchFate.SENDING))
        body = entry.body or self._body(entry.values or [])
        try:
            with only_own_cancellation(of="a batch"):
                if self._journal:
                    await self._journal.deliver(entry, body, self._send)
                else:
                    await self._send(entry, body)
        except BaseException as error:
            emit(self._client.hook, entry.event(entry.fate, error))
            raise
        emit(self._client.hook, entry.event(entry.fate, entry.delivery.refused))

    async def _send(self, entry: Entry, body: bytes) -> None:
        entry.body = None
        if not self._keep_values:
            entry.values = None
        try:
            await self._client.deliver(wire.issue_rewards(body, entry.key), entry.delivery)
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


async def _seen_through(stream: IssuanceStream) -> IssuanceRun:
    async with stream as handles:
        async for _ in handles:
            pass
    return stream.run


def check_run_id(run_id: str | None) -> None:
    if run_id is not None and not checks.text("run_id", run_id).isprintable():
        raise checks.wrong("run_id", "has a character that cannot be shown")


def check_sizes(batch_size: int, max_concurrency: int | None, linger: float, max_waiting: int) -> None:
    checks.number("batch_size", batch_size, 1, MAX_BATCH, whole=True)
    if max_concurrency is not None:
        checks.number("max_concurrency", max_concurrency, 1, whole=True)
    checks.number("linger", linger, 0)
    checks.number("max_waiting", max_waiting, 1, whole=True)


def check_parts(client: object, guard: object, ledger: object, on_progress: object) -> None:
    checks.kind("client", isinstance(client, ThanxClient), "a ThanxClient", client)
    checks.kind("guard", isinstance(guard, Guard), "a Guard, such as Guard(max_rewards=1000)", guard)
    if ledger is not None:
        checks.has("ledger", ledger, "an open SQLiteLedger(path)", "claim", "record", "accept", "finish")
    if on_progress is not None:
        checks.kind("on_progress", callable(on_progress), "callable with a run", on_progress)

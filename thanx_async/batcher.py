"""Any number of guests, in batches: read, cut, sent side by side within the rate limits, accounted for."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterable, Callable, Iterable
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Self
from uuid import uuid4

from thanx_async._batches import SERVICE_RUNS
from thanx_async._core import checks
from thanx_async._core.errors import ConfigurationError, LedgerError, ServerError, TransportError
from thanx_async.batching import (
    BatchError,
    BatchInDoubt,
    BatchRange,
    BatchSender,
    Begin,
    Chunker,
    CloseReport,
    Collector,
    Guard,
    GuestRow,
    IssuancePlan,
    IssuanceReport,
    IssuanceRun,
    IssuanceStream,
    NotRevoked,
    Outcome,
    RevocationReport,
    RunAccount,
    Source,
    Target,
    planned,
)
from thanx_async.client import ThanxClient, internals
from thanx_async.identifiers import MAX_BATCH, normalise
from thanx_async.jobs import JobHandle
from thanx_async.models import check_target

if TYPE_CHECKING:
    from thanx_async.batching import Recorder
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

_log = logging.getLogger("thanx_async.batching")


class AsyncBatcher:
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
        _check_sizes(batch_size, max_concurrency, linger, max_waiting)
        _check_parts(client, guard, ledger, on_progress)
        transport, jobs = internals(client)
        target = Target(campaign_id, merchant_id, variant_id, jobs)
        self._client = client
        self._batch_size = batch_size
        self._deduplicate = deduplicate
        self._keep_values = keep_values
        self.guard = guard
        self._linger = linger
        self._max_waiting = max_waiting
        self._on_progress = on_progress
        self._recorder = None if ledger is None else self._recording_in(ledger, target)
        self._sender = BatchSender(
            target,
            transport,
            client.limiter,
            client.hook,
            self._recorder,
            max_concurrency=max_concurrency,
            keep_values=keep_values,
        )
        self._collector: Collector | None = None

    def __repr__(self) -> str:
        service = "" if self._collector is None else f" {self._collector!r}"
        return f"<AsyncBatcher {'/'.join(self._sender.target.ids)} concurrency={self.concurrency}{service}>"

    @property
    def concurrency(self) -> int:
        """Requests that may be under way at once: the rate times the latency (Little's law), and one more."""
        return self._sender.concurrency

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
        _check_run_id(run_id)
        account = RunAccount(run_id or uuid4().hex, self._chunker())
        if self.guard.canary is not None:
            account.chunker.cut_first_at(self.guard.canary)
        begin = self._recorder.begin if self._recorder else None
        return self._stream(account, Source(identifiers), self.guard, begin)

    def _stream(
        self, account: RunAccount, source: Source | None, guard: Guard, begin: Begin | None
    ) -> IssuanceStream:
        stream = IssuanceStream(self._sender, account, source, guard, begin)
        if self._on_progress is not None:
            account.on_change(partial(self._on_progress, stream.run))
        return stream

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
        if self._recorder is None:
            raise ConfigurationError(
                "to resume a run, AsyncBatcher needs the ledger that it is recorded in", argument="ledger"
            )
        account = RunAccount(run_id, self._chunker())
        recall = partial(self._recorder.recall, replay=replay, decided=decided)
        guard = self.guard if decided else Guard()
        return await _seen_through(self._stream(account, None, guard, recall))

    async def plan(self, identifiers: Identifiers) -> IssuancePlan:
        """Read and check the input without sending anything."""
        return await planned(Source(identifiers), self._chunker(), self._client.limiter.limits)

    def _chunker(self) -> Chunker:
        return Chunker(self._batch_size, deduplicate=self._deduplicate, keep_values=self._keep_values)

    def _recording_in(self, ledger: Ledger, target: Target) -> Recorder:
        from thanx_async.batching import Recorder  # what records is not loaded for those who do not
        from thanx_async.ledger import RunRecord

        settings = RunRecord(
            run_id="",
            base_url=self._client.base_url,
            client_id=self._client.client_id,
            campaign_id=target.campaign_id,
            merchant_id=target.merchant_id,
            variant_id=target.variant_id,
            batch_size=self._batch_size,
            deduplicate=self._deduplicate,
            canary=self.guard.canary,
        )
        return Recorder(ledger, settings, target, keep_values=self._keep_values)

    async def __aenter__(self) -> Self:
        if self._collector is not None and not self._collector.is_closed:
            raise ConfigurationError("the batcher is open already: share it, or make another one")
        self._collector = Collector(
            self._sender, size=self._batch_size, linger=self._linger, max_waiting=self._max_waiting
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close, as `aclose` does. On a cancellation nothing more is sent."""
        collector = self._opened
        if error is None or isinstance(error, Exception):
            await collector.aclose(None)
        else:
            await collector.abort()
            error.add_note(f"micro-batches: {collector.report}")

    @property
    def _opened(self) -> Collector:
        if self._collector is None:
            raise ConfigurationError(
                "the batcher is not open: use it as `async with AsyncBatcher(...) as batcher`"
            )
        return self._collector

    async def add(self, identifier: object) -> JobHandle:
        """Issue a reward to one guest; returns the job of its batch once Thanx has accepted it.

        Guests of concurrent callers go out together. A guest who is added again while waiting is sent once,
        and both callers get the handle; once its batch is on its way, a further ``add`` is a further reward.
        Cancelling takes the guest out, unless somebody else has added it too or its batch is on its way.
        Waits while ``max_waiting`` guests wait.

        Args:
            identifier: what `Identifier.parse` takes.

        Raises:
            InvalidIdentifierError: at once; nobody else is concerned.
            BadRequestError: Thanx refused the batch. Where it blames a single value, the others are sent
                without it.
            BatcherClosedError: the batcher was closed; ``in_doubt`` tells whether the guest was sent.
            ThanxError: what the batch ended in, ``in_doubt`` with its ``idempotency_key`` if it was sent.
        """
        return await self._opened.add(normalise(identifier))

    async def outcome(self, identifier: object, *, timeout: float | None = None) -> Outcome:
        """Wait for the job of a guest whose `add` has returned, the latest one, and tell how it went.

        The last ``max_waiting`` accepted guests are remembered, of at most 10,000 batches. All who ask about
        one job share its polls.

        Args:
            timeout: seconds, None for as long as it takes.

        Raises:
            ConfigurationError: no such guest is remembered.
            JobTimeoutError, ThanxError: as from `JobHandle.wait`; ask again.
        """
        checks.timeout(timeout)
        return await self._opened.outcomes.of(normalise(identifier), timeout=timeout)

    async def aclose(self, *, timeout: float | None = None) -> CloseReport:
        """Take no more guests, send those who wait, without lingering, and wait for the answers.

        Args:
            timeout: seconds, 0 for none, after which nothing more is sent and what is under way is broken
                off: the callers get a `BatcherClosedError`, which is ``in_doubt`` for those who were sent.
        """
        checks.timeout(timeout)
        return await self._opened.aclose(timeout)

    async def recover(self) -> list[IssuanceRun]:
        """Send again, with the same keys and bytes, what earlier openings of a batcher for this campaign left
        in doubt in the ledger: after a crash, for one. Call it at the start of a service.

        Runs of other processes that are alive are left alone, and so is what has been in doubt for longer
        than the ledger's ``replay_within``. Whatever is left, and why, is logged as a warning; it stays in
        doubt in the ledger, and can be recovered later. A process that died in another container, or on a
        machine that has another name by now, counts as alive for 5 minutes.

        Returns:
            The runs that were taken up, as far as they were in doubt: ``run.in_doubt`` is what still is, and
            ``run.error`` what stopped it. Without an answer from Thanx the first of them is the last.

        Raises:
            ConfigurationError: the batcher has no ledger.
            LedgerError: the ledger cannot be used.
        """
        if self._recorder is None:
            raise ConfigurationError(
                "to recover, AsyncBatcher needs the ledger that its batches are recorded in",
                argument="ledger",
            )
        runs = []
        for run_id in await self._recorder.left_in_doubt(SERVICE_RUNS):
            try:
                run = await self._take_up(run_id, decided=False)
            except LedgerError as error:
                _log.warning("run %s was not taken up: %s", run_id, error)
                continue
            except BatchError as error:
                run = error.run
            runs.append(run)
            if run.error or run.in_doubt:
                reason = run.error or "some of it is too old to be sent again; settle it"
                _log.warning("run %s is left in doubt: %s; %r", run_id, reason, run)
            if isinstance(run.error, TransportError | ServerError):
                break
        return runs


async def _seen_through(stream: IssuanceStream) -> IssuanceRun:
    async with stream as handles:
        async for _ in handles:
            pass
    return stream.run


def _check_run_id(run_id: str | None) -> None:
    if run_id is not None and not checks.text("run_id", run_id).isprintable():
        raise checks.wrong("run_id", "has a character that cannot be shown")


def _check_sizes(batch_size: int, max_concurrency: int | None, linger: float, max_waiting: int) -> None:
    checks.number("batch_size", batch_size, 1, MAX_BATCH, whole=True)
    if max_concurrency is not None:
        checks.number("max_concurrency", max_concurrency, 1, whole=True)
    checks.number("linger", linger, 0)
    checks.number("max_waiting", max_waiting, 1, whole=True)


def _check_parts(client: object, guard: object, ledger: object, on_progress: object) -> None:
    checks.kind("client", isinstance(client, ThanxClient), "a ThanxClient", client)
    checks.kind("guard", isinstance(guard, Guard), "a Guard, such as Guard(max_rewards=1000)", guard)
    if ledger is not None:
        checks.has("ledger", ledger, "an open SQLiteLedger(path)", "claim", "record", "accept", "finish")
    if on_progress is not None:
        checks.kind("on_progress", callable(on_progress), "callable with a run", on_progress)

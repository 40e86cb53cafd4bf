"""`AsyncBatcher`: issues rewards to any number of guests, in batches, with `issue`, `stream` or `add`."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterable
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Self
from uuid import uuid4

from thanx_async._batches import SERVICE_RUNS
from thanx_async._core import checks
from thanx_async._core.errors import ConfigurationError, LedgerError, ServerError, TransportError
from thanx_async._core.escaping import get_logger, printable
from thanx_async._core.tasks import Home
from thanx_async.batching import (
    BatchError,
    BatchInDoubt,
    BatchRange,
    BatchSender,
    Begin,
    Chunker,
    CloseReport,
    Collector,
    Eta,
    Guard,
    GuestRow,
    IssuancePlan,
    IssuanceReport,
    IssuanceRun,
    IssuanceStream,
    NotRevoked,
    NotVerified,
    Outcome,
    RevocationReport,
    RunAccount,
    Source,
    Target,
    VerificationReport,
    check_run_id,
    check_sizes,
    planned,
    run_to_end,
)
from thanx_async.client import ThanxClient, internals
from thanx_async.identifiers import MAX_BATCH, normalise
from thanx_async.jobs import JobHandle
from thanx_async.limiter import Lane
from thanx_async.models import check_target

if TYPE_CHECKING:
    from thanx_async.batching import Recorder
    from thanx_async.ledger import Ledger

__all__ = [
    "AsyncBatcher",
    "BatchInDoubt",
    "BatchRange",
    "CloseReport",
    "Eta",
    "Guard",
    "GuestRow",
    "IssuancePlan",
    "IssuanceReport",
    "IssuanceRun",
    "IssuanceStream",
    "NotRevoked",
    "NotVerified",
    "Outcome",
    "RevocationReport",
    "VerificationReport",
]

Identifiers = Iterable[object] | AsyncIterable[object]

_log = get_logger("thanx_async.batching")


class AsyncBatcher:
    """Issues one reward to each of any number of guests.

    `issue` and `stream` take the guests of an input. `add` takes guests one by one from concurrent callers,
    while the batcher is open: ``async with batcher``.

    Args:
        client: an open client.
        campaign_id, merchant_id, variant_id: what to issue. Source: Issue Rewards reference page.
        batch_size: identifiers in a request, 1 to 10,000.
        max_concurrency: requests in flight; by default as many as the rate limits and the measured latency
            call for, 2 to 32.
        deduplicate: issue each guest of a run only one reward. This takes about 110 bytes for each guest,
            until the input has ended.
        keep_values: name the guests in the report's rows. Without it, rows have only positions.
        guard: limits the rewards and the failures of each run of `issue` and `stream`.
        ledger: an open ledger, where each batch is recorded before it is sent. After a crash the same run can
            be started again, and continues where it stopped.
        linger: seconds for which the first guest of a batch waits in `add` for others.
        max_waiting: guests who can wait in `add` to be sent. Further callers wait for a place, in order.
        on_progress: called with the run after each change.
        follow_outcomes: wait in the background for the jobs of `add`, until the batcher is closed, so that
            the client's hook and log tell how many guests failed even if nobody asks for an outcome. A job
            costs about one poll, 15 s after it was accepted, and none if a caller has seen its end by then.
            Polls spend the same rate limits, so a busy service sends fewer and larger batches. At most 1,000
            jobs are followed at once, each for an hour.

    Raises:
        ConfigurationError: an argument is unusable; the message tells which one, and why.
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
        follow_outcomes: bool = False,
    ) -> None:
        check_target(campaign_id, merchant_id, variant_id)
        checks.flags(deduplicate=deduplicate, keep_values=keep_values, follow_outcomes=follow_outcomes)
        check_sizes(batch_size, max_concurrency, linger, max_waiting)
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
        self._follow_outcomes = follow_outcomes
        self._recorder = None if ledger is None else self._make_recorder(ledger, target)
        self._sender = BatchSender(
            target,
            transport,
            client.limiter,
            client.hook,
            self._recorder,
            max_concurrency=max_concurrency,
            keep_values=keep_values,
        )
        self._home = Home("the batcher", "async with AsyncBatcher(...) as batcher")
        self._collector: Collector | None = None

    def __repr__(self) -> str:
        service = "" if self._collector is None else f" {self._collector!r}"
        target = printable("/".join(self._sender.target.ids))
        return f"<AsyncBatcher {target} concurrency={self.concurrency}{service}>"

    @property
    def concurrency(self) -> int:
        """Requests allowed in flight: by default the rate times the latency (Little's law), plus one."""
        return self._sender.concurrency

    async def issue(
        self, identifiers: Identifiers, *, run_id: str | None = None, limit: int | None = None
    ) -> IssuanceRun:
        """Send all guests of an input, until Thanx has accepted every batch. Then ``await run.wait()``.

        Args:
            identifiers: any iterable or async iterable of values that `Identifier.parse` takes. Invalid items
                become ``rejected`` rows.
            run_id: makes the idempotency keys repeatable; a new one by default. The same input under the same
                ``run_id`` is not issued twice as long as Thanx keeps its keys. With a ledger, the run
                continues where it stopped: accepted batches are not sent again, and batches in doubt are sent
                with the same key and bytes.
            limit: read only this many items of the input. With a ledger, the same ``run_id`` and input
                without a limit, or with a higher one, continue the run after them.

        Raises:
            InputChangedError: the ledger has this run with another input. Nothing was sent.
            LedgerError: the ledger has this run with other settings, or another process is issuing it.
                Nothing was sent.
            BatchError: the run stopped. Its ``run`` knows the fate of every item read so far, and its
                ``__cause__`` is the error that stopped the run.
        """
        return await run_to_end(self.stream(identifiers, run_id=run_id, limit=limit))

    def stream(
        self, identifiers: Identifiers, *, run_id: str | None = None, limit: int | None = None
    ) -> IssuanceStream:
        """Like `issue`, but yield each job handle once Thanx accepts its batch, in input order::

            async with batcher.stream(source) as handles:
                async for handle in handles: ...

        A slow consumer applies backpressure to the input. Leaving the block stops the run: no more batches
        are sent, and requests in flight finish. ``handles.run`` is accurate at every moment.
        """
        check_run_id(run_id)
        account = RunAccount(run_id or uuid4().hex, self._chunker(), self._client.limiter)
        if self.guard.canary is not None:
            account.chunker.cut_first_at(self.guard.canary)
        begin = self._recorder.begin if self._recorder else None
        return self._stream(account, Source(identifiers, limit=limit), self.guard, begin)

    def _stream(
        self, account: RunAccount, source: Source | None, guard: Guard, begin: Begin | None
    ) -> IssuanceStream:
        stream = IssuanceStream(self._sender, account, source, guard, begin)
        if self._on_progress is not None:
            account.on_change(partial(self._on_progress, stream.run))
        return stream

    async def resume(self, run_id: str, *, replay: bool = True) -> IssuanceRun:
        """Continue a run from the ledger alone, without its input.

        Batches in doubt are sent again, with the same key and bytes. The returned run holds all recorded
        batches, but its rows have no identifiers. If the run stopped before all of its input was recorded,
        the rest needs the input: call `issue`.

        Args:
            run_id: the id of the run.
            replay: send batches in doubt. Without it nothing is sent, and they are only reported.

        Raises:
            LedgerError: the run is unknown, issues something else, or another process is issuing it.
            BatchError: as for `issue`.
        """
        checks.text("run_id", run_id)
        return await self._continue(run_id, replay=replay)

    async def _continue(
        self, run_id: str, *, replay: bool = True, only_in_doubt: bool = False
    ) -> IssuanceRun:
        if self._recorder is None:
            raise ConfigurationError(
                "to resume a run, AsyncBatcher needs the ledger that it is recorded in", argument="ledger"
            )
        account = RunAccount(run_id, self._chunker(), self._client.limiter)
        recall = partial(self._recorder.recall, replay=replay, only_in_doubt=only_in_doubt)
        guard = Guard() if only_in_doubt else self.guard
        return await run_to_end(self._stream(account, None, guard, recall))

    async def plan(self, identifiers: Identifiers, *, limit: int | None = None) -> IssuancePlan:
        """Read and check the input without a request. Returns what a run would send.

        Args:
            identifiers: as for `issue`.
            limit: read only this many items of the input.
        """
        return await planned(Source(identifiers, limit=limit), self._chunker(), self._client.limiter)

    def _chunker(self) -> Chunker:
        return Chunker(self._batch_size, deduplicate=self._deduplicate, keep_values=self._keep_values)

    def _make_recorder(self, ledger: Ledger, target: Target) -> Recorder:
        from thanx_async.batching import Recorder  # not loaded without a ledger
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
        if self._collector is not None and not self._collector.is_closed and not self._home.is_lost:
            raise ConfigurationError("the batcher is open already: share it, or make another one")
        self._home.end()
        self._home.enter()
        self._collector = Collector(
            self._sender.in_lane(Lane.INTERACTIVE),
            self._recorder,
            size=self._batch_size,
            linger=self._linger,
            max_waiting=self._max_waiting,
            follow_outcomes=self._follow_outcomes,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close like `aclose`. After a cancellation nothing more is sent."""
        collector = self._open_collector
        if error is None or isinstance(error, Exception):
            await collector.aclose(None)
        else:
            await collector.abort()
            error.add_note(f"micro-batches: {collector.report}")

    @property
    def _open_collector(self) -> Collector:
        self._home.check()
        assert self._collector is not None  # noqa: S101 - it is made where the home is entered
        return self._collector

    async def add(self, identifier: object, *, timeout: float | None = None) -> JobHandle:
        """Issue a reward to one guest. Returns the job of the guest's batch once Thanx has accepted it.

        Guests of concurrent callers share a batch. A guest who is added twice while waiting is sent once, and
        both callers get the handle. Once the guest's batch is cut, another ``add`` is another reward.

        Cancelling takes the guest out, unless another caller has added the same guest or the batch is cut. A
        note on the cancellation, which is the cause of the `TimeoutError` of ``asyncio.timeout``, tells
        whether the guest was taken out or may get the reward, and with which idempotency key.

        With a ledger, the batch is recorded under that key before it is sent. The caller may be told the key
        before the record is durable. If the process then dies, `recover` settles the batches that the ledger
        knows. A key that is in no batch of the ledger after the restart was never sent: nothing was issued
        under it, and the guest can be added again. Look for the key in ``ledger.batches(run.run_id)`` of all
        ``ledger.runs()``. If the outcome of its batch is ``split``, Thanx refused the batch because of one
        guest, and the others may have the reward under the keys of later batches at the same positions.

        While ``max_waiting`` guests are waiting, further callers wait for a place.

        Call it on the event loop on which the batcher was opened; from another thread as
        ``asyncio.run_coroutine_threadsafe(batcher.add(guest), loop).result()``.

        Args:
            identifier: a value that `Identifier.parse` takes.
            timeout: in seconds; None for as long as it takes.

        Raises:
            AddTimeoutError: there was no answer in time; ``in_doubt`` tells whether the guest may get the
                reward.
            InvalidIdentifierError: the identifier is invalid. It does not affect other callers.
            BadRequestError: Thanx refused the batch. If it blames a single value, the other guests are sent
                without it.
            BatcherClosedError: the batcher was closed; ``in_doubt`` tells whether the guest was sent.
            ThanxError: the error that ended the batch, ``in_doubt`` and with the batch's ``idempotency_key``
                if Thanx may have acted on it.
        """
        checks.timeout(timeout)
        reply = self._open_collector.add(normalise(identifier), timeout)
        del identifier  # tools that record the local variables of errors would record the guest
        return await reply

    async def outcome(self, identifier: object, *, timeout: float | None = None) -> Outcome:
        """Wait for the latest job of a guest who was added, and tell the guest's outcome.

        A guest who is still on the way is waited for, whatever has become of the caller of `add`, and with a
        ledger also a guest whose batch is in doubt, until the batch is settled.

        The batcher remembers the last ``max_waiting`` accepted guests, in at most 10,000 batches. All callers
        who wait for a job share its polls.

        Args:
            identifier: a value that `Identifier.parse` takes.
            timeout: in seconds; None for as long as it takes.

        Raises:
            ConfigurationError: the guest is not remembered.
            AddTimeoutError: the guest is still on the way, or in doubt; call again.
            BatcherClosedError: the guest was taken out, or the batcher was closed, before an answer.
            JobTimeoutError: the job is still running; call again.
            ThanxError: the error that ended the guest's batch, if its caller had stopped waiting; or Thanx
                refused a poll, such as with a 401 or a 404. Outages are waited out.
        """
        checks.timeout(timeout)
        outcome = self._open_collector.outcome_for(normalise(identifier), timeout)
        del identifier  # see `add`
        return await outcome

    async def aclose(self, *, timeout: float | None = None) -> CloseReport:
        """Stop taking guests, send everyone still waiting without lingering, and wait for the answers.

        Args:
            timeout: in seconds; None for as long as it takes, 0 for no wait. After it nothing more is sent,
                and requests in flight are cancelled. Their callers get a `BatcherClosedError`, which is
                ``in_doubt`` for guests who were sent.

        Returns:
            The guests left without an answer.
        """
        checks.timeout(timeout)
        return await self._open_collector.aclose(timeout)

    async def recover(self) -> list[IssuanceRun]:
        """Send the batches of `add` that earlier processes left in doubt, with the same keys and bytes.

        Call this when a service starts. It covers batches in the ledger with the same campaign, merchant and
        variant. Batches that this batcher itself leaves in doubt while it is open are sent again once Thanx
        answers; `recover` tries them at once.

        A key that a caller of `add` was told, and that the ledger does not know, was never sent: nothing was
        issued under it; see `add`.

        Runs of processes that are still alive are left alone, and so are batches that have been in doubt for
        longer than the ledger's ``replay_within``. A warning in the log tells which batches stay in doubt,
        and why; they can be recovered later. A process that died in another container, or on a machine that
        has since been renamed, counts as alive for 5 minutes.

        Returns:
            The recovered runs, with only the batches that were in doubt. ``run.in_doubt`` holds the batches
            that still are, and ``run.error`` the error that stopped the run. If Thanx does not answer, the
            first such run is the last one.

        Raises:
            ConfigurationError: the batcher has no ledger.
            LedgerError: the ledger cannot be used.
        """
        if self._recorder is None:
            raise ConfigurationError(
                "to recover, AsyncBatcher needs the ledger that its batches are recorded in",
                argument="ledger",
            )
        if self._collector is not None and not self._collector.is_closed:
            await self._open_collector.settle_doubts()
        runs = []
        for run_id in await self._recorder.left_in_doubt(SERVICE_RUNS):
            try:
                run = await self._continue(run_id, only_in_doubt=True)
            except LedgerError as error:
                _log.warning("run %s was not recovered: %s", run_id, error)
                continue
            except BatchError as error:
                run = error.run
            runs.append(run)
            if run.error or run.in_doubt:
                reason = (
                    run.error or "some of it is refused when it is sent again, or too old for that; settle it"
                )
                _log.warning("run %s is left in doubt: %s; %r", run_id, reason, run)
            if isinstance(run.error, TransportError | ServerError):
                break
        return runs


def _check_parts(client: object, guard: object, ledger: object, on_progress: object) -> None:
    checks.kind("client", isinstance(client, ThanxClient), "a ThanxClient", client)
    checks.kind("guard", isinstance(guard, Guard), "a Guard, such as Guard(max_rewards=1000)", guard)
    if ledger is not None:
        checks.has("ledger", ledger, "an open SQLiteLedger(path)", "claim", "record", "accept", "finish")
    if on_progress is not None:
        checks.callback("on_progress", on_progress, "callable with a run")

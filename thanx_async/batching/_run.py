"""Who got what: the account of a run, whose parts sum to the total at every moment."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from time import time
from typing import TYPE_CHECKING

import attrs

from thanx_async._core import checks
from thanx_async._core.errors import NotFoundError, ThanxError
from thanx_async.batching._batch import Entry, is_in_doubt, is_unfinished, is_unsent
from thanx_async.batching._chunker import Chunker, Dropped
from thanx_async.batching._report import BatchRange, GuestRow, IssuanceReport, RevocationReport
from thanx_async.batching._revocation import revoke_batches
from thanx_async.jobs import JobHandle

if TYPE_CHECKING:
    from thanx_async.ledger import BatchRecord, Ledger, RunRecord

_RECORD_EVERY = 5.0


class BatchError(ThanxError):
    """A run stopped before its end. ``run`` knows the fate of every identifier read; the cause is chained.

    The keys of what is in doubt are in ``run.in_doubt``.
    """

    __module__ = "thanx_async.errors"

    def __init__(self, message: str, *, run: IssuanceRun) -> None:
        super().__init__(message)
        self.run = run
        self.in_doubt = bool(run.in_doubt)


class IssuanceRun:
    """A run and its account, true at every moment.

    Attributes:
        run_id: names the run; the idempotency keys follow from it.
        error: what stopped the run, None otherwise.
    """

    def __init__(self, run_id: str, chunker: Chunker) -> None:
        self.run_id = run_id
        self.error: BaseException | None = None
        self._chunker = chunker
        self._entries: list[Entry] = []
        self._notify: Callable[[IssuanceRun], None] | None = None
        self._recorded_at = 0.0
        self.ledger: Ledger | None = None
        self.record: RunRecord | None = None
        self.recorded: Mapping[int, BatchRecord] = {}

    def __repr__(self) -> str:
        counts = ", ".join(f"{count:,} {fate}" for fate, count in self.report().counts.items() if count)
        return f"<IssuanceRun {self.run_id}: {counts or 'nothing read'}>"

    def __reduce__(self) -> tuple[object, ...]:
        state = self.run_id, self._entries, self._chunker, self.recorded
        return _restored, state

    @property
    def total(self) -> int:
        """Items read from the input so far."""
        return self._chunker.read

    @property
    def handles(self) -> list[JobHandle]:
        """The accepted batches' jobs, in input order."""
        return [entry.handle for entry in self._entries if entry.handle]

    @property
    def rejected(self) -> list[GuestRow]:
        """Items that are no identifiers."""
        return _rows(self._chunker.rejected)

    @property
    def duplicates(self) -> list[GuestRow]:
        """Items that name a guest who came before."""
        return _rows(self._chunker.duplicates)

    @property
    def unsent(self) -> list[BatchRange]:
        """Batches that Thanx has certainly not accepted; a new run may send them."""
        ranges = [entry.range() for entry in self._entries if is_unsent(entry)]
        return [*ranges, *(batch for batch in self._pending() if batch.key is None)]

    @property
    def in_doubt(self) -> list[BatchRange]:
        """Batches that were sent and not answered, and jobs that ended without saying who got a reward.

        Where the reading of a recorded run's input stopped within a recorded batch, that part of it as well.
        """
        ranges = [entry.range() for entry in self._entries if is_in_doubt(entry)]
        return [*ranges, *(batch for batch in self._pending() if batch.key is not None)]

    def _pending(self) -> list[BatchRange]:
        """What was read and waits for the rest of its batch, with its key if that batch is recorded."""
        pending = self._chunker.pending
        if not pending:
            return []
        record = self.recorded.get(len(self._entries))
        key, job_id = (record.key, record.job_id) if record else (None, None)
        return [BatchRange(pending.first, pending.last, len(pending), key, job_id)]

    def report(self) -> IssuanceReport:
        """What is known now, without a request."""
        for entry in self._entries:
            entry.look()
        return IssuanceReport(
            run_id=self.run_id,
            total=self.total,
            issued=sum(entry.issued for entry in self._entries),
            failed=[row for entry in self._entries for row in entry.rows],
            rejected=self.rejected,
            duplicates=self.duplicates,
            unsent=self.unsent,
            in_doubt=self.in_doubt,
            unfinished=[entry.range() for entry in self._entries if is_unfinished(entry)],
        )

    async def wait(self, *, timeout: float | None = None) -> IssuanceReport:
        """Wait for every job and report.

        Args:
            timeout: seconds, after which jobs that still run are reported as ``unfinished``.

        Raises:
            ThanxError: a poll failed, after its retries; `report` says what is known, and `wait` can be
                called again.
        """
        checks.timeout(timeout)
        try:
            async with asyncio.timeout(timeout) as scope:
                await self._follow_all()
        except TimeoutError:
            if not scope.expired():
                raise
        return self.report()

    async def _follow_all(self) -> None:
        try:
            await self._poll_all()
        except BaseException as error:
            await _after(error, self.record_outcomes())
            raise
        await self.record_outcomes()

    async def _poll_all(self) -> None:
        """Follow every job to its end; one that Thanx does not know any more does not keep the others."""
        lost: list[NotFoundError] = []
        try:
            async with asyncio.TaskGroup() as group:
                for entry in self._entries:
                    if entry.handle and (not entry.settled or entry.remembered):
                        group.create_task(self._follow(entry, entry.handle, lost))
        except ExceptionGroup as errors:
            thanx, _ = errors.split(ThanxError)
            raise _first(thanx or errors) from None
        if lost:
            raise lost[0]

    async def _follow(self, entry: Entry, handle: JobHandle, lost: list[NotFoundError]) -> None:
        try:
            async for _ in handle.updates():
                await asyncio.sleep(0)  # thousands of failures hold the loop to be decoded, and again now
                entry.look()
                self.changed()
        except NotFoundError as error:
            if entry.remembered is None:
                lost.append(error)
            else:
                entry.settle(entry.remembered)
        if asyncio.get_running_loop().time() - self._recorded_at > _RECORD_EVERY:
            await self.record_outcomes()

    async def record_outcomes(self) -> None:
        """Write the outcomes that are known into the ledger, several at once."""
        self._recorded_at = asyncio.get_running_loop().time()
        fresh = [entry for entry in self._entries if entry.settled and not entry.recorded]
        if self.ledger is not None and fresh:
            outcomes = {entry.number: entry.outcome() for entry in fresh}
            await self.ledger.finish(self.run_id, outcomes)
            for entry in fresh:
                entry.recorded = entry.state == outcomes[entry.number].state

    async def input_ended(self) -> None:
        """Write down how long the input was, by which a complete run is known."""
        if self.ledger is not None and self.record is not None:
            self.record = attrs.evolve(self.record, total=self.total, batches=len(self._entries))
            await self.ledger.save_run(self.record)

    async def release(self) -> None:
        """Write down the outcomes that are known, and let others claim the run."""
        if self.ledger is not None:
            try:
                await self.record_outcomes()
            finally:
                await self.ledger.release(self.run_id)

    async def revoke(self) -> RevocationReport:
        """Take back every job of the run, waiting for those that still run.

        With a ledger the run is marked as revoked, and is never issued further. What is in doubt has no
        job that could be taken back: `AsyncBatcher.resume` it first.

        Raises:
            LedgerError: the run is being issued right now, or the mark could not be written; nothing was
                taken back.
        """
        if self.ledger is None or self.record is None:
            return await revoke_batches(self.run_id, self._entries)
        await self.ledger.claim(self.record)
        try:
            self.record = attrs.evolve(self.record, revoked_at=time())
            await self.ledger.save_run(self.record)
            report = await revoke_batches(self.run_id, self._entries)
        except BaseException as error:
            for entry in self._entries:
                entry.look()
            await _after(error, self.release())
            raise
        await self.release()
        return report

    @property
    def chunker(self) -> Chunker:
        return self._chunker

    @property
    def entries(self) -> list[Entry]:
        return self._entries

    def on_change(self, notify: Callable[[IssuanceRun], None] | None) -> None:
        self._notify = notify

    def changed(self) -> None:
        if self._notify:
            self._notify(self)


def _restored(
    run_id: str, entries: list[Entry], chunker: Chunker, recorded: Mapping[int, BatchRecord]
) -> IssuanceRun:
    run = IssuanceRun(run_id, chunker)
    run.recorded = recorded
    run.entries.extend(entries)
    return run


async def _after(error: BaseException, step: Awaitable[None]) -> None:
    """A step that is due although something is raised already, such as a cancellation, which goes first."""
    try:
        await step
    except ThanxError as failure:
        error.add_note(f"meanwhile: {failure}")


def _first(group: ExceptionGroup[Exception]) -> Exception:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


def _rows(dropped: list[Dropped]) -> list[GuestRow]:
    return [GuestRow(row.position, row.value, row.reason) for row in dropped]

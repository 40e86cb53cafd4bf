"""The state behind an `IssuanceRun`: batches, pending input, ledger; follows the jobs, makes the report."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from time import time
from typing import TYPE_CHECKING

import attrs

from thanx_async._core.errors import NotFoundError, ThanxError
from thanx_async.batching._batch import Batch
from thanx_async.batching._chunker import Chunker
from thanx_async.batching._eta import Eta, eta_of_run
from thanx_async.batching._relay import listening
from thanx_async.batching._report import (
    BatchRange,
    GuestRow,
    IssuanceReport,
    RevocationReport,
    VerificationReport,
)
from thanx_async.batching._revocation import revoke_batches
from thanx_async.batching._rows import JoinedRows
from thanx_async.batching._tally import Tally
from thanx_async.batching._trust_sharing import share_trust
from thanx_async.batching._verification import verify_batches
from thanx_async.instrumentation import refuse_awaitable
from thanx_async.jobs import JobHandle
from thanx_async.limiter import RateLimiter

if TYPE_CHECKING:
    from thanx_async.jobs import JobRegistry
    from thanx_async.ledger import BatchRecord, Ledger, RunRecord

_RECORD_EVERY = 5.0


class RunAccount:
    """The current state of a run, and its records in the ledger.

    Attributes:
        chunker: holds the input read so far, including identifiers of the next batch.
        batches: all batches cut so far, by number.
        tally: running sums over them.
        error: the error that stopped the run, None otherwise.
    """

    def __init__(self, run_id: str, chunker: Chunker, limiter: RateLimiter | None = None) -> None:
        self.run_id = run_id
        self.chunker = chunker
        self.batches: list[Batch] = []
        self.tally: Tally = Tally()
        self.error: BaseException | None = None
        self._limiter = limiter
        self._on_change: Callable[[], object] | None = None
        self._jobs: JobRegistry | None = None
        self._ledger: Ledger | None = None
        self._record: RunRecord | None = None
        self._recorded: Mapping[int, BatchRecord] = {}
        self._recorded_at = 0.0

    def __reduce__(self) -> tuple[object, ...]:
        return _restored, (self.run_id, self.chunker, self.batches, self._recorded)

    def on_change(self, callback: Callable[[], object]) -> None:
        """Call back after each change."""
        self._on_change = callback

    def announce_change(self) -> None:
        """Tell the callback of `on_change` that something has changed."""
        if self._on_change:
            refuse_awaitable("on_progress", self._on_change())

    def add(self, batches: Iterable[Batch]) -> None:
        """Add batches to the run."""
        for batch in batches:
            self.batches.append(batch)
            batch.join(self.tally)

    def fail(self, error: BaseException | None) -> None:
        """Keep the error that stops the run; the first one counts."""
        self.error = self.error or error

    def attach_jobs(self, jobs: JobRegistry) -> None:
        """The registry follows the jobs of the run."""
        self._jobs = jobs

    def attach_ledger(self, ledger: Ledger, record: RunRecord) -> None:
        """Record outcomes in this ledger from now on; the run is claimed there."""
        self._ledger, self._record = ledger, record

    def expect_recorded(self, recorded: Mapping[int, BatchRecord]) -> None:
        """Take in the batches that earlier processes recorded for this run."""
        self._recorded = recorded

    def unsent(self) -> list[BatchRange]:
        """Batches that Thanx has certainly not accepted."""
        ranges = [batch.range() for batch in self.batches if batch.is_unsent]
        return [*ranges, *(part for part in self._pending() if part.key is None)]

    def unsent_guests(self) -> Iterator[GuestRow]:
        """The guests of the `unsent` batches."""
        for position, value in self._unsent_values():
            yield GuestRow(position, value if self.chunker.keep_values else None, "not sent")

    def _unsent_values(self) -> Iterator[tuple[int, str | None]]:
        for batch in self.batches:
            if batch.is_unsent:
                yield from batch.values_at()
        if any(part.key is None for part in self._pending()):
            yield from zip(self.chunker.pending, self.chunker.pending_values, strict=True)

    def in_doubt(self) -> list[BatchRange]:
        """Batches that may have been issued, including the part read so far of a recorded batch."""
        ranges = [batch.range() for batch in self.batches if batch.is_in_doubt]
        return [*ranges, *(part for part in self._pending() if part.key is not None)]

    def _pending(self) -> list[BatchRange]:
        """The identifiers that wait for the rest of their batch, with its key if that batch is recorded."""
        pending = self.chunker.pending
        if not pending:
            return []
        record = self._recorded.get(len(self.batches))
        key, job_id = (record.key, record.job_id) if record else (None, None)
        return [BatchRange(pending.first, pending.last, len(pending), key, job_id)]

    def report(self) -> IssuanceReport:
        """The report as of now, without a request."""
        for batch in self.batches:
            batch.settle_from_job()
        return IssuanceReport(
            run_id=self.run_id,
            total=self.chunker.read,
            issued=sum(batch.issued for batch in self.batches),
            failed=JoinedRows(batch.rows for batch in self.batches),
            rejected=self.chunker.rejected,
            duplicates=self.chunker.duplicates,
            unsent=self.unsent(),
            in_doubt=self.in_doubt(),
            unfinished=[batch.range() for batch in self.batches if batch.is_unfinished],
        )

    def counts(self) -> dict[str, int]:
        """The counts of a report, from running sums instead of the batches."""
        pending, total = self._pending(), self.tally.current()
        unsent = sum(part.count for part in pending if part.key is None)
        return {
            "issued": total.issued,
            "failed": total.failed,
            "rejected": len(self.chunker.rejected),
            "duplicates": len(self.chunker.duplicates),
            "unsent": total.unsent + unsent,
            "in_doubt": total.in_doubt + sum(part.count for part in pending) - unsent,
            "unfinished": total.unfinished,
        }

    def eta(self, total: int) -> Eta | None:
        """When the run is expected to end, if its input has ``total`` items."""
        if self._limiter is None:
            return None
        uncut = 0 if self.error else len(self.chunker.pending) + max(0, total - self.chunker.read)
        return eta_of_run(self.batches, uncut=uncut, size=self.chunker.size, status=self._limiter.status())

    async def follow_all(self) -> None:
        """Follow every job to its end. The known outcomes are recorded even if this fails."""
        try:
            async with listening(self._ledger, self.run_id, self._jobs):
                await self._poll_all()
            if self._jobs is not None:
                await self._jobs.audits.settle()
            await self._poll_retracted()
        except BaseException as error:
            await _finish_despite(error, self.record_outcomes())
            raise
        await self.record_outcomes()

    async def _poll_retracted(self) -> None:
        """Follow the jobs whose outcome an event told that is not believed any more."""
        for batch in self.batches:
            batch.settle_from_job()
        if any(batch.is_unfinished for batch in self.batches):
            await self._poll_all()

    async def verify(self, sample: float) -> VerificationReport:
        """Poll a sample of the jobs whose outcome an event told."""
        try:
            report = await verify_batches(self.run_id, self.batches, sample)
            await self._poll_retracted()
        except BaseException as error:
            await _finish_despite(error, self.record_outcomes())
            raise
        await self.record_outcomes()
        return report

    async def _poll_all(self) -> None:
        """Follow every job to its end. A job that Thanx no longer knows does not stop the others."""
        lost: list[NotFoundError] = []
        try:
            async with asyncio.TaskGroup() as group:
                for batch in self.batches:
                    if batch.handle and (not batch.settled or batch.fallback):
                        group.create_task(self._follow(batch, batch.handle, lost))
        except ExceptionGroup as errors:
            thanx, _ = errors.split(ThanxError)
            raise _first_error(thanx or errors) from None
        if lost:
            raise lost[0]

    async def _follow(self, batch: Batch, handle: JobHandle, lost: list[NotFoundError]) -> None:
        try:
            async for _ in handle.updates():
                await asyncio.sleep(0)  # thousands of failures blocked the loop for decoding, and will again
                batch.settle_from_job()
                self.announce_change()
        except NotFoundError as error:
            if not batch.job_lost():
                lost.append(error)
        if asyncio.get_running_loop().time() - self._recorded_at > _RECORD_EVERY:
            await self.record_outcomes()

    async def record_outcomes(self) -> None:
        """Write all known outcomes to the ledger, in one call."""
        self._recorded_at = asyncio.get_running_loop().time()
        unrecorded = [batch for batch in self.batches if batch.settled and not batch.recorded]
        if self._ledger is not None and unrecorded:
            outcomes = {batch.number: batch.outcome() for batch in unrecorded}
            await self._ledger.finish(self.run_id, outcomes)
            for batch in unrecorded:
                batch.mark_recorded(outcomes[batch.number])
        await self._share_trust()

    async def _share_trust(self) -> None:
        if self._ledger and self._record and self._jobs and self._jobs.trust.has_news:
            await share_trust(self._ledger, self._jobs.trust, self._record)

    async def input_ended(self) -> None:
        """Record the length of the input, which tells whether a run is complete."""
        if self._ledger is not None and self._record is not None:
            total, batches = self.chunker.read, len(self.batches)
            self._record = attrs.evolve(self._record, total=total, batches=batches)
            await self._ledger.save_run(self._record)

    async def release(self) -> None:
        """Record the known outcomes, and let other processes claim the run."""
        if self._ledger is not None:
            try:
                await self.record_outcomes()
            finally:
                await self._ledger.release(self.run_id)

    async def revoke(self) -> RevocationReport:
        """Revoke every job, and mark the run as revoked if it is recorded."""
        if self._ledger is None or self._record is None:
            return await revoke_batches(self.run_id, self.batches)
        await self._ledger.claim(self._record)
        try:
            self._record = attrs.evolve(self._record, revoked_at=time())
            await self._ledger.save_run(self._record)
            report = await revoke_batches(self.run_id, self.batches)
        except BaseException as error:
            for batch in self.batches:
                batch.settle_from_job()
            await _finish_despite(error, self.release())
            raise
        await self.release()
        return report


def _restored(
    run_id: str, chunker: Chunker, batches: list[Batch], recorded: Mapping[int, BatchRecord]
) -> RunAccount:
    account = RunAccount(run_id, chunker)
    account.add(batches)
    account.expect_recorded(recorded)
    return account


async def _finish_despite(error: BaseException, step: Awaitable[None]) -> None:
    """Take a final step although ``error`` is being raised; a failure of the step becomes a note on it."""
    try:
        await step
    except ThanxError as failure:
        error.add_note(f"meanwhile: {failure}")


def _first_error(group: ExceptionGroup[Exception]) -> Exception:
    error = group.exceptions[0]
    return _first_error(error) if isinstance(error, BaseExceptionGroup) else error

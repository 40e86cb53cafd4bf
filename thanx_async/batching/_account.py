"""The books of a run: its batches, the rest of its input, and its ledger; what users see is `IssuanceRun`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from time import time
from typing import TYPE_CHECKING

import attrs

from thanx_async._core.errors import NotFoundError, ThanxError
from thanx_async.batching._batch import Batch
from thanx_async.batching._chunker import Chunker, Dropped
from thanx_async.batching._report import BatchRange, GuestRow, IssuanceReport, RevocationReport
from thanx_async.batching._revocation import revoke_batches
from thanx_async.jobs import JobHandle

if TYPE_CHECKING:
    from thanx_async.ledger import BatchRecord, Ledger, RunRecord

_RECORD_EVERY = 5.0


class RunAccount:
    """What is known of a run at every moment, and of it written down.

    Attributes:
        chunker: what was read of the input, and what of it waits for the rest of its batch.
        batches: all that were cut, by number.
        error: what stopped the run, None otherwise.
    """

    def __init__(self, run_id: str, chunker: Chunker) -> None:
        self.run_id = run_id
        self.chunker = chunker
        self.batches: list[Batch] = []
        self.error: BaseException | None = None
        self._notify: Callable[[], None] | None = None
        self._ledger: Ledger | None = None
        self._record: RunRecord | None = None
        self._recorded: Mapping[int, BatchRecord] = {}
        self._recorded_at = 0.0

    def __reduce__(self) -> tuple[object, ...]:
        return _restored, (self.run_id, self.chunker, self.batches, self._recorded)

    def on_change(self, notify: Callable[[], None]) -> None:
        """Call this whenever something has changed."""
        self._notify = notify

    def changed(self) -> None:
        """Tell that something has changed."""
        if self._notify:
            self._notify()

    def fail(self, error: BaseException | None) -> None:
        """The run stops for this reason; the first one counts."""
        self.error = self.error or error

    def keep_in(self, ledger: Ledger, record: RunRecord) -> None:
        """The run is claimed in a ledger, which gets its outcomes from now on."""
        self._ledger, self._record = ledger, record

    def expect(self, recorded: Mapping[int, BatchRecord]) -> None:
        """These batches of it were recorded by earlier processes."""
        self._recorded = recorded

    def rejected(self) -> list[GuestRow]:
        """Items that are no identifiers."""
        return _rows(self.chunker.rejected)

    def duplicates(self) -> list[GuestRow]:
        """Items that name a guest who came before."""
        return _rows(self.chunker.duplicates)

    def unsent(self) -> list[BatchRange]:
        """Batches that Thanx has certainly not accepted."""
        ranges = [batch.range() for batch in self.batches if batch.is_unsent]
        return [*ranges, *(part for part in self._pending() if part.key is None)]

    def in_doubt(self) -> list[BatchRange]:
        """Batches that may have been issued, and what was read of one that is recorded."""
        ranges = [batch.range() for batch in self.batches if batch.is_in_doubt]
        return [*ranges, *(part for part in self._pending() if part.key is not None)]

    def _pending(self) -> list[BatchRange]:
        """What was read and waits for the rest of its batch, with its key if that batch is recorded."""
        pending = self.chunker.pending
        if not pending:
            return []
        record = self._recorded.get(len(self.batches))
        key, job_id = (record.key, record.job_id) if record else (None, None)
        return [BatchRange(pending.first, pending.last, len(pending), key, job_id)]

    def report(self) -> IssuanceReport:
        """What is known now, without a request."""
        for batch in self.batches:
            batch.look()
        return IssuanceReport(
            run_id=self.run_id,
            total=self.chunker.read,
            issued=sum(batch.issued for batch in self.batches),
            failed=[row for batch in self.batches for row in batch.rows],
            rejected=self.rejected(),
            duplicates=self.duplicates(),
            unsent=self.unsent(),
            in_doubt=self.in_doubt(),
            unfinished=[batch.range() for batch in self.batches if batch.is_unfinished],
        )

    async def follow_all(self) -> None:
        """Follow every job to its end, and write the outcomes down, however this ends."""
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
                for batch in self.batches:
                    if batch.handle and (not batch.settled or batch.remembered):
                        group.create_task(self._follow(batch, batch.handle, lost))
        except ExceptionGroup as errors:
            thanx, _ = errors.split(ThanxError)
            raise _first(thanx or errors) from None
        if lost:
            raise lost[0]

    async def _follow(self, batch: Batch, handle: JobHandle, lost: list[NotFoundError]) -> None:
        try:
            async for _ in handle.updates():
                await asyncio.sleep(0)  # thousands of failures hold the loop to be decoded, and again now
                batch.look()
                self.changed()
        except NotFoundError as error:
            if not batch.lost():
                lost.append(error)
        if asyncio.get_running_loop().time() - self._recorded_at > _RECORD_EVERY:
            await self.record_outcomes()

    async def record_outcomes(self) -> None:
        """Write the outcomes that are known into the ledger, several at once."""
        self._recorded_at = asyncio.get_running_loop().time()
        fresh = [batch for batch in self.batches if batch.settled and not batch.recorded]
        if self._ledger is not None and fresh:
            outcomes = {batch.number: batch.outcome() for batch in fresh}
            await self._ledger.finish(self.run_id, outcomes)
            for batch in fresh:
                batch.written(outcomes[batch.number])

    async def input_ended(self) -> None:
        """Write down how long the input was, by which a complete run is known."""
        if self._ledger is not None and self._record is not None:
            total, batches = self.chunker.read, len(self.batches)
            self._record = attrs.evolve(self._record, total=total, batches=batches)
            await self._ledger.save_run(self._record)

    async def release(self) -> None:
        """Write down the outcomes that are known, and let others claim the run."""
        if self._ledger is not None:
            try:
                await self.record_outcomes()
            finally:
                await self._ledger.release(self.run_id)

    async def revoke(self) -> RevocationReport:
        """Take back every job, and mark the run as revoked if it is recorded."""
        if self._ledger is None or self._record is None:
            return await revoke_batches(self.run_id, self.batches)
        await self._ledger.claim(self._record)
        try:
            self._record = attrs.evolve(self._record, revoked_at=time())
            await self._ledger.save_run(self._record)
            report = await revoke_batches(self.run_id, self.batches)
        except BaseException as error:
            for batch in self.batches:
                batch.look()
            await _after(error, self.release())
            raise
        await self.release()
        return report


def _restored(
    run_id: str, chunker: Chunker, batches: list[Batch], recorded: Mapping[int, BatchRecord]
) -> RunAccount:
    account = RunAccount(run_id, chunker)
    account.batches.extend(batches)
    account.expect(recorded)
    return account


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

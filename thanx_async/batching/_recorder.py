"""A batcher's side of the ledger: what is written down when, and how it is taken up again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import attrs

from thanx_async._batches import digest_of
from thanx_async._core.errors import InputChangedError, LedgerError, ThanxError
from thanx_async._core.messages import Message, Name
from thanx_async.batching._account import RunAccount
from thanx_async.batching._batch import Batch
from thanx_async.batching._chunker import Chunk
from thanx_async.batching._recorded_input import RecordedInput
from thanx_async.batching._target import Target
from thanx_async.ledger import BatchRecord, BatchState, Ledger, RunRecord

_log = logging.getLogger("thanx_async.batching")

_ENDS = ("completed", "failed")

Send = Callable[[Batch, bytes], Awaitable[None]]


class Recorder:
    """Keeps a ledger accurate for the runs of one batcher; ``settings`` are those of all its runs."""

    def __init__(self, ledger: Ledger, settings: RunRecord, target: Target, *, keep_values: bool) -> None:
        self._ledger = ledger
        self._settings = settings
        self._target = target
        self._keep_values = keep_values

    async def begin(self, account: RunAccount) -> RecordedInput:
        """Claim a run whose input is about to be read.

        Raises:
            LedgerError: another has it, it was revoked, or its settings were others.
        """
        async with _claimed(self._ledger, attrs.evolve(self._settings, run_id=account.run_id)) as known:
            if known.revoked_at is not None:
                raise LedgerError(
                    Message(
                        f"run {account.run_id!r} was revoked; give another ",
                        Name("run_id"),
                        " to issue its guests again",
                    )
                )
            account.keep_in(self._ledger, known)
            account.chunker.cut_first_at(known.canary or known.batch_size)
            recorded = {record.number: record for record in await self._ledger.batches(account.run_id)}
            account.expect(recorded)
            return RecordedInput(recorded, self._target.encode, self._adopt)

    async def open(self, run_id: str) -> None:
        """Claim a new run of batches that have no common input."""
        await self._ledger.claim(attrs.evolve(self._settings, run_id=run_id))

    async def close(self, run_id: str) -> None:
        await self._ledger.release(run_id)

    async def left_in_doubt(self, prefix: str) -> list[str]:
        """The runs of this campaign, with ids that begin so, that have batches to be sent again."""
        newest = {batch.run_id: batch for batch in await self._ledger.in_doubt()}
        found = []
        for run_id, batch in newest.items():
            run = await self._ledger.run(run_id) if run_id.startswith(prefix) else None
            if run is None or run.target != self._target.ids:
                continue
            if differences := self._as_recorded(run).differences(run):
                _log.warning("run %s is left in doubt: it has %s", run_id, "; ".join(differences))
            elif run.revoked_at is not None:
                _log.warning("run %s is left in doubt: it was revoked", run_id)
            elif batch.is_older_than(self._ledger.replay_within):
                _log.warning("run %s is left in doubt: it is too old to be sent again; settle it", run_id)
            else:
                found.append(run_id)
        return found

    def _as_recorded(self, known: RunRecord) -> RunRecord:
        """The settings, with what of them does not matter to batches that are cut already."""
        return attrs.evolve(self._settings, batch_size=known.batch_size, deduplicate=known.deduplicate)

    async def recall(self, account: RunAccount, *, replay: bool, decided: bool) -> None:
        """Claim a recorded run, and fill its account from what is recorded; without ``decided`` only from
        what is in doubt.

        Raises:
            LedgerError: it is unknown, another has it, or it issues something else.
        """
        known = await self._ledger.run(account.run_id)
        if known is None:
            raise LedgerError(f"the ledger knows no run {account.run_id!r}")
        if differences := self._as_recorded(known).differences(known):
            raise LedgerError(
                Message(
                    f"run {account.run_id!r} was started with other settings: ",
                    Message("; ").join(differences),
                )
            )
        async with _claimed(self._ledger, known) as claimed:
            account.keep_in(self._ledger, claimed)
            for record in await self._recorded(account.run_id, decided=decided):
                batch = await self._recalled(record, claimed, replay=replay)
                account.batches.append(batch)
                account.chunker.skip(len(record.positions))

    async def _recalled(self, record: BatchRecord, run: RunRecord, *, replay: bool) -> Batch:
        batch = Batch(Chunk(record.number, record.positions, []), run.run_id)
        self._adopt(batch, record, revoked=run.revoked_at is not None)
        if replay and not batch.is_decided and run.revoked_at is None:
            batch.replay(await self._ledger.body(run.run_id, record.number))
        else:
            batch.hold()
        return batch

    async def _recorded(self, run_id: str, *, decided: bool) -> list[BatchRecord]:
        if decided:
            return await self._ledger.batches(run_id)
        return [record for record in await self._ledger.in_doubt() if record.run_id == run_id]

    def _adopt(self, batch: Batch, record: BatchRecord, *, revoked: bool = False) -> None:
        """Give a batch the fate that is recorded.

        Of a ``revoked`` run a job that had ended may have been revoked by a process that was killed before
        it could write that down: it is looked at anew. What was settled by hand stands until it was revoked.
        """
        if revoked and record.job_id is not None and record.outcome and record.outcome.state != "revoked":
            batch.remember(record.outcome)
            if record.outcome.state in _ENDS:
                record = attrs.evolve(record, state=BatchState.ACCEPTED, outcome=None)
        held = record.state is BatchState.IN_DOUBT and record.is_older_than(self._ledger.replay_within)
        batch.adopt(record, self._target.recorded(record), held=held, keep_values=self._keep_values)

    async def deliver(self, batch: Batch, body: bytes, send: Send) -> None:
        """Write a batch down, send it, and write down what became of it."""
        try:
            if not await self._record(batch, body):
                return
        except asyncio.CancelledError as error:
            await self._conclude(batch, error)
            raise
        try:
            await send(batch, body)
        except BaseException as error:
            await self._conclude(batch, error)
            raise
        await self._after(batch)

    async def _conclude(self, batch: Batch, error: BaseException) -> None:
        """What is raised already goes before a failure of the ledger."""
        try:
            await self._after(batch)
        except LedgerError as failure:
            error.add_note(f"meanwhile: {failure}")
            if isinstance(error, ThanxError) and batch.delivery.in_doubt:
                error.in_doubt, error.idempotency_key = True, batch.key

    async def _record(self, batch: Batch, body: bytes) -> bool:
        """Write a batch down; False if it need not be sent, since its fate is known by now.

        Raises:
            LedgerError: it could not be written down, so it must not be sent.
        """
        digest = digest_of(body)
        wanted = BatchRecord(batch.run_id, batch.number, batch.key, batch.positions, digest)
        try:
            known = await self._ledger.record(wanted, body)
        except Exception as error:
            if getattr(error, "in_doubt", True):  # it may be in the ledger, from where it may be sent
                batch.doubt()
            raise
        if known.digest != digest:
            raise InputChangedError(
                f"batch {batch.number} of run {batch.run_id!r} was recorded with other guests meanwhile",
                batch=batch.number,
                first=known.positions.first,
                last=known.positions.last,
            )
        if known.state is not BatchState.IN_DOUBT:
            self._adopt(batch, known)
        return not batch.is_decided

    async def _after(self, batch: Batch) -> None:
        """Write down what became of a batch."""
        if batch.handle is not None:
            await self._ledger.accept(batch.run_id, batch.number, batch.handle.id)
        elif batch.settled:
            outcome = batch.outcome()
            await self._ledger.finish(batch.run_id, {batch.number: outcome})
            batch.written(outcome)
        elif not batch.delivery.in_doubt:
            try:
                await self._ledger.withdraw(batch.run_id, batch.number)
            except LedgerError:  # it is still in the ledger, from where it may be sent
                batch.doubt()
                raise


@asynccontextmanager
async def _claimed(ledger: Ledger, run: RunRecord) -> AsyncIterator[RunRecord]:
    """A claim that is given back if what follows it fails."""
    record = await ledger.claim(run)
    try:
        yield record
    except BaseException:
        await ledger.release(run.run_id)
        raise

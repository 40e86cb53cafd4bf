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
from thanx_async.batching._batch import Entry
from thanx_async.batching._chunker import Batch
from thanx_async.batching._recorded_input import Past
from thanx_async.batching._run import IssuanceRun
from thanx_async.client import ThanxClient
from thanx_async.ledger import BatchRecord, BatchState, Ledger, RunRecord

_log = logging.getLogger(__name__)

_ENDS = ("completed", "failed")

Send = Callable[[Entry, bytes], Awaitable[None]]


class Journal:
    """Keeps a ledger true for the runs of one batcher; ``settings`` are those of all its runs."""

    def __init__(
        self,
        ledger: Ledger,
        client: ThanxClient,
        settings: RunRecord,
        encode: Callable[[list[str]], bytes],
        *,
        keep_values: bool,
    ) -> None:
        self._ledger = ledger
        self._client = client
        self._settings = settings
        self._encode = encode
        self._keep_values = keep_values

    async def begin(self, run: IssuanceRun) -> Past:
        """Claim a run whose input is about to be read.

        Raises:
            LedgerError: another has it, it was revoked, or its settings were others.
        """
        async with _claimed(self._ledger, attrs.evolve(self._settings, run_id=run.run_id)) as known:
            if known.revoked_at is not None:
                raise LedgerError(
                    Message(
                        f"run {run.run_id!r} was revoked; give another ",
                        Name("run_id"),
                        " to issue its guests again",
                    )
                )
            run.ledger, run.record = self._ledger, known
            run.chunker.cut_first_at(known.canary or known.batch_size)
            run.recorded = {record.number: record for record in await self._ledger.batches(run.run_id)}
            return Past(run.recorded, self._encode, self.adopt)

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
            if run is None or run.target != self._settings.target:
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

    async def recall(self, run: IssuanceRun, *, replay: bool, decided: bool) -> Past | None:
        """Claim a recorded run, and fill its account from what is recorded; without ``decided`` only from
        what is in doubt.

        Raises:
            LedgerError: it is unknown, another has it, or it issues something else.
        """
        known = await self._ledger.run(run.run_id)
        if known is None:
            raise LedgerError(f"the ledger knows no run {run.run_id!r}")
        if differences := self._as_recorded(known).differences(known):
            raise LedgerError(
                Message(
                    f"run {run.run_id!r} was started with other settings: ", Message("; ").join(differences)
                )
            )
        async with _claimed(self._ledger, known) as run.record:
            run.ledger = self._ledger
            for record in await self._recorded(run.run_id, decided=decided):
                entry = Entry(Batch(record.number, record.positions, []), record.key, run.run_id)
                self.adopt(entry, record, revoked=run.record.revoked_at is not None)
                if replay and not entry.is_decided and run.record.revoked_at is None:
                    entry.body = await self._ledger.body(run.run_id, record.number)
                else:
                    entry.held = True
                run.entries.append(entry)
                run.chunker.read += len(record.positions)
        return None

    async def _recorded(self, run_id: str, *, decided: bool) -> list[BatchRecord]:
        if decided:
            return await self._ledger.batches(run_id)
        return [record for record in await self._ledger.in_doubt() if record.run_id == run_id]

    def adopt(self, entry: Entry, record: BatchRecord, *, revoked: bool = False) -> None:
        """Give an entry the fate that is recorded.

        Of a ``revoked`` run a job that had ended may have been revoked by who was killed before it could
        write that down: it is looked at anew. What was settled by hand stands until it was revoked.
        """
        if revoked and record.job_id is not None and record.outcome and record.outcome.state != "revoked":
            entry.remembered = record.outcome
            if record.outcome.state in _ENDS:
                record = attrs.evolve(record, state=BatchState.ACCEPTED, outcome=None)
        entry.key = record.key
        in_doubt = record.state is BatchState.IN_DOUBT
        entry.held = in_doubt and record.is_older_than(self._ledger.replay_within)
        if not self._keep_values and (entry.held or not in_doubt):
            entry.values = None
        if record.job_id is not None:
            job, merchant_id = record.job(), self._settings.merchant_id
            entry.handle = (
                self._client.accepted(job, merchant_id=merchant_id)
                if job
                else self._client.job(record.job_id, merchant_id=merchant_id)
            )
            entry.handle.start, entry.handle.total = record.positions.first, len(record.positions)
        if record.outcome is not None:
            entry.settle(record.outcome)
            entry.recorded = True
        entry.delivery.in_doubt = in_doubt

    async def deliver(self, entry: Entry, body: bytes, send: Send) -> None:
        """Write a batch down, send it, and write down what became of it."""
        try:
            if not await self._record(entry, body):
                return
        except asyncio.CancelledError as error:
            await self._conclude(entry, error)
            raise
        try:
            await send(entry, body)
        except BaseException as error:
            await self._conclude(entry, error)
            raise
        await self._after(entry)

    async def _conclude(self, entry: Entry, error: BaseException) -> None:
        """What is raised already goes before a failure of the ledger."""
        try:
            await self._after(entry)
        except LedgerError as failure:
            error.add_note(f"meanwhile: {failure}")
            if isinstance(error, ThanxError) and entry.delivery.in_doubt:
                error.in_doubt, error.idempotency_key = True, entry.key

    async def _record(self, entry: Entry, body: bytes) -> bool:
        """Write a batch down; False if it need not be sent, since its fate is known by now.

        Raises:
            LedgerError: it could not be written down, so it must not be sent.
        """
        digest = digest_of(body)
        wanted = BatchRecord(entry.run_id, entry.number, entry.key, entry.positions, digest)
        known = await self._ledger.record(wanted, body)
        if known.digest != digest:
            raise InputChangedError(
                f"batch {entry.number} of run {entry.run_id!r} was recorded with other guests meanwhile",
                batch=entry.number,
                first=known.positions.first,
                last=known.positions.last,
            )
        if known.state is not BatchState.IN_DOUBT:
            self.adopt(entry, known)
        return not entry.is_decided

    async def _after(self, entry: Entry) -> None:
        """Write down what became of a batch."""
        if entry.handle is not None:
            await self._ledger.accept(entry.run_id, entry.number, entry.handle.id)
        elif entry.settled:
            await self._ledger.finish(entry.run_id, {entry.number: entry.outcome()})
            entry.recorded = True
        elif not entry.delivery.in_doubt:
            try:
                await self._ledger.withdraw(entry.run_id, entry.number)
            except LedgerError:  # it is still in the ledger, from where it may be sent
                entry.delivery.in_doubt = True
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

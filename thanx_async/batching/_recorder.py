"""Records runs and batches in the ledger, before and after each send; restores recorded runs from it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from time import time

import attrs

from thanx_async._batches import digest_of
from thanx_async._core.errors import InputChangedError, LedgerError, ThanxError
from thanx_async._core.escaping import get_logger
from thanx_async._core.messages import Message, Name
from thanx_async.batching._account import RunAccount
from thanx_async.batching._batch import Batch
from thanx_async.batching._chunker import Chunk
from thanx_async.batching._recorded_input import RecordedInput
from thanx_async.batching._sender import Send
from thanx_async.batching._target import Target
from thanx_async.batching._trust_sharing import share_trust
from thanx_async.ledger import BatchRecord, BatchState, Ledger, RunRecord

_log = get_logger("thanx_async.batching")

_REVOCABLE = ("completed", "failed")


class Recorder:
    """Keeps a ledger accurate for the runs of one batcher.

    Args:
        ledger: an open ledger.
        settings: the settings of every run of the batcher; the run id is filled in.
        target: what the batches issue.
        keep_values: keep the identifiers of batches that are not sent.
    """

    def __init__(self, ledger: Ledger, settings: RunRecord, target: Target, *, keep_values: bool) -> None:
        self._ledger = ledger
        self._settings = settings
        self._target = target
        self._keep_values = keep_values

    async def begin(self, account: RunAccount) -> RecordedInput:
        """Claim a run whose input is about to be read.

        Returns:
            The recorded batches, to be compared with the input.

        Raises:
            LedgerError: another process holds the run, it was revoked, or its settings differ.
        """
        async with _claimed(self._ledger, attrs.evolve(self._settings, run_id=account.run_id)) as run:
            if run.revoked_at is not None:
                raise LedgerError(
                    Message(
                        f"run {account.run_id!r} was revoked; give another ",
                        Name("run_id"),
                        " to issue its guests again",
                    )
                )
            account.attach_ledger(self._ledger, run)
            account.chunker.cut_first_at(run.canary or run.batch_size)
            records = await self._ledger.batches(account.run_id)
            await self._learn_trust(records)
            recorded = {record.number: record for record in records}
            account.chunker.cut_as_before(_sizes(recorded, run))
            account.expect_recorded(recorded)
            return RecordedInput(recorded, self._target.encode, self._adopt)

    async def open(self, run_id: str) -> None:
        """Claim a new run for batches of guests who are added one by one."""
        await self._ledger.claim(attrs.evolve(self._settings, run_id=run_id))
        await self._learn_trust([])

    async def _learn_trust(self, records: Iterable[BatchRecord]) -> None:
        """Take in how far events can be trusted, if any are believed here or were for these batches."""
        trust = self._target.jobs.trust
        if trust.is_active or any(map(_is_by_event, records)):
            await share_trust(self._ledger, trust, self._settings)

    async def _share_news(self) -> None:
        if self._target.jobs.trust.has_news:
            await share_trust(self._ledger, self._target.jobs.trust, self._settings)

    async def close(self, run_id: str) -> None:
        """Let other processes claim a run of `open`."""
        await self._share_news()
        await self._ledger.release(run_id)

    async def restore(self, batch: Batch) -> None:
        """Give a batch in doubt its recorded bytes, to be sent again."""
        batch.replay(await self._ledger.body(batch.run_id, batch.number))

    async def left_in_doubt(self, prefix: str) -> list[str]:
        """The ids of this target's runs that have batches in doubt to send again.

        The log tells why other runs with batches in doubt are left out.

        Args:
            prefix: how the run ids begin.
        """
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

    def _as_recorded(self, run: RunRecord) -> RunRecord:
        """The batcher's settings, but with the recorded ones that only affect how batches are cut."""
        return attrs.evolve(self._settings, batch_size=run.batch_size, deduplicate=run.deduplicate)

    async def recall(self, account: RunAccount, *, replay: bool, only_in_doubt: bool) -> None:
        """Claim a recorded run, and fill its account from the recorded batches.

        Args:
            account: a new account with the id of the run.
            replay: send the batches in doubt again; without it they are only held.
            only_in_doubt: leave out the batches that are not in doubt.

        Raises:
            LedgerError: the run is unknown, another process holds it, or it issues something else.
        """
        run = await self._ledger.run(account.run_id)
        if run is None:
            raise LedgerError(f"the ledger knows no run {account.run_id!r}")
        if differences := self._as_recorded(run).differences(run):
            raise LedgerError(
                Message(
                    f"run {account.run_id!r} was started with other settings: ",
                    Message("; ").join(differences),
                )
            )
        async with _claimed(self._ledger, run) as claimed:
            account.attach_ledger(self._ledger, claimed)
            records = await self._records(account.run_id, only_in_doubt=only_in_doubt)
            await self._learn_trust(records)
            for record in records:
                batch = await self._recall_batch(record, claimed, replay=replay)
                account.add([batch])
                account.chunker.skip(len(record.positions))

    async def _recall_batch(self, record: BatchRecord, run: RunRecord, *, replay: bool) -> Batch:
        batch = Batch(Chunk(record.number, record.positions, []), run.run_id)
        self._adopt(batch, record, run)
        if replay and not batch.is_decided and run.revoked_at is None:
            batch.replay(await self._ledger.body(run.run_id, record.number))
            batch.limit_age(record.recorded_at, run.replayed_within(self._ledger.replay_within))
        else:
            batch.hold()
        return batch

    async def _records(self, run_id: str, *, only_in_doubt: bool) -> list[BatchRecord]:
        if only_in_doubt:
            return [record for record in await self._ledger.in_doubt() if record.run_id == run_id]
        return await self._ledger.batches(run_id)

    def _adopt(self, batch: Batch, record: BatchRecord, run: RunRecord | None = None) -> None:
        """Give a batch its recorded fate.

        In a revoked ``run`` the recorded outcome of a job may be out of date: a process may have revoked the
        job and been killed before it could record that. So the job is polled again. An outcome that was
        settled by hand stands until the job is found revoked.
        """
        within, revoked = self._ledger.replay_within, False
        if run is not None:
            within, revoked = run.replayed_within(within), run.revoked_at is not None
        if revoked and record.job_id is not None and record.outcome and record.outcome.state != "revoked":
            batch.set_fallback(record.outcome)
            if record.outcome.state in _REVOCABLE:
                record = attrs.evolve(record, state=BatchState.ACCEPTED, outcome=None)
        elif record.outcome and record.outcome.by_event and self._target.jobs.trust.known.broken:
            batch.set_fallback(record.outcome)
            record = attrs.evolve(record, state=BatchState.ACCEPTED, outcome=None)
        held = record.state is BatchState.IN_DOUBT and record.held_because(within) is not None
        batch.adopt(record, self._target.recorded(record), held=held, keep_values=self._keep_values)

    async def deliver(self, batch: Batch, body: bytes, send: Send) -> None:
        """Record a batch, send it, and record its fate.

        Args:
            batch: the batch, whose run must be claimed.
            body: the bytes of its request.
            send: sends them, and updates the batch.

        Raises:
            LedgerError: the batch or its fate could not be recorded.
            ThanxError: from ``send``.
        """
        try:
            is_to_send = await self._record_batch(batch, body)
        except asyncio.CancelledError as error:
            await self._record_fate_despite(batch, error)
            raise
        if not is_to_send:
            return
        try:
            await send(batch, body)
        except BaseException as error:
            await self._record_fate_despite(batch, error)
            raise
        await self._record_fate(batch)

    async def record_together(self, batches: list[Batch]) -> None:
        """Record batches in one transaction, before any of them is delivered."""
        bodies = [batch.body(self._target.encode) for batch in batches]
        pairs = zip(batches, bodies, strict=True)
        await self._ledger.record_all([(_record_of(batch, body), body) for batch, body in pairs])

    async def _record_fate_despite(self, batch: Batch, error: BaseException) -> None:
        """Record the fate while ``error`` is being raised; a failure of the ledger becomes a note on it."""
        try:
            await self._record_fate(batch)
        except LedgerError as failure:
            error.add_note(f"meanwhile: {failure}")
            if isinstance(error, ThanxError):
                batch.mark_if_in_doubt(error)

    async def _record_batch(self, batch: Batch, body: bytes) -> bool:
        """Record a batch before it is sent. Returns whether to send it: its fate may be known by now.

        Raises:
            LedgerError: the batch could not be recorded, so it must not be sent.
        """
        wanted = _record_of(batch, body)
        batch.limit_age(time(), self._ledger.replay_within)
        try:
            recorded = await self._ledger.record(wanted, body)
        except Exception as error:
            if getattr(error, "in_doubt", True):  # it may be in the ledger, from where it may be sent
                batch.doubt()
            raise
        if recorded.digest != wanted.digest:
            raise InputChangedError(
                f"batch {batch.number} of run {batch.run_id!r} was recorded with other guests meanwhile",
                batch=batch.number,
                first=recorded.positions.first,
                last=recorded.positions.last,
            )
        batch.limit_age(recorded.recorded_at, self._ledger.replay_within)
        if recorded.state is not BatchState.IN_DOUBT:
            self._adopt(batch, recorded)
        return not batch.is_decided

    async def _record_fate(self, batch: Batch) -> None:
        """Record the fate of a batch after a delivery."""
        if batch.handle is not None:
            await self._ledger.accept(batch.run_id, batch.number, batch.handle.id)
            await self._share_news()
        elif batch.settled:
            outcome = batch.outcome()
            await self._ledger.finish(batch.run_id, {batch.number: outcome})
            batch.mark_recorded(outcome)
        elif not batch.delivery.in_doubt:
            try:
                await self._ledger.withdraw(batch.run_id, batch.number)
            except LedgerError:  # the batch is still in the ledger, and another process may send it
                batch.doubt()
                raise


def _is_by_event(record: BatchRecord) -> bool:
    return record.outcome is not None and record.outcome.by_event


def _sizes(recorded: Mapping[int, BatchRecord], run: RunRecord) -> dict[int, int]:
    """The sizes of the recorded batches: a run of only the first guests of an input has a small one.

    The batch at the end of the whole input is left out, so that an input that has grown is noticed.
    """
    last = None if run.batches is None else run.batches - 1
    return {number: len(record.positions) for number, record in recorded.items() if number != last}


def _record_of(batch: Batch, body: bytes) -> BatchRecord:
    return BatchRecord(batch.run_id, batch.number, batch.key, batch.positions, digest_of(body))


@asynccontextmanager
async def _claimed(ledger: Ledger, run: RunRecord) -> AsyncIterator[RunRecord]:
    """Claim a run, and release it again if the block raises."""
    record = await ledger.claim(run)
    try:
        yield record
    except BaseException:
        await ledger.release(run.run_id)
        raise

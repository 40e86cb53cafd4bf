"""The commands for recorded runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import cyclopts

from thanx_async._batches import BatchOutcome, outcome_of
from thanx_async._core.errors import ConfigurationError, LeaseError, LedgerError
from thanx_async.cli._answer import batch_fields, run_fields, write_json
from thanx_async.cli._client import connect
from thanx_async.cli._options import Flag, LedgerName, Whole
from thanx_async.cli._output import write
from thanx_async.cli._recorded import (
    AnyLedger,
    before_sending,
    command,
    date,
    known_run,
    name_of,
    open_ledger,
    states,
)
from thanx_async.cli._status import ISSUED
from thanx_async.cli._words import amount
from thanx_async.ledger import LANES, BatchRecord, BatchState, RunProgress, RunRecord, Settlement

ledger_app = cyclopts.App(name="ledger")


@ledger_app.command
async def runs(*, ledger: LedgerName | None = None, json: Flag = False) -> int:
    """List the recorded runs, oldest first.

    Parameters
    ----------
    ledger:
        The ledger's file, or postgresql://...; by default the user's own file.
    json:
        Print JSON.
    """
    async with open_ledger(ledger) as opened:
        rows = await opened.progress()
        if json:
            write_json(list(map(run_fields, rows)))
            return ISSUED
        if not rows:
            write(f"no runs are recorded in {name_of(opened)}")
        for row in rows:
            write(f"{row.run.run_id}  {date(row.run.created_at)}  {_progress(row)}")
    return ISSUED


@ledger_app.command
async def show(run: str, /, *, ledger: LedgerName | None = None, json: Flag = False) -> int:
    """Show a run and its batches.

    Parameters
    ----------
    run:
        The run's id.
    ledger:
        The ledger's file, or postgresql://...; by default the user's own file.
    json:
        Print JSON.
    """
    async with open_ledger(ledger) as opened:
        record = await known_run(opened, run)
        batches = await opened.batches(run)
    replay_within = record.replayed_within(opened.replay_within)
    if json:
        rows = [batch_fields(batch, replay_within) for batch in batches]
        write_json({**run_fields(RunProgress.of(record, batches)), "batches": rows})
        return ISSUED
    write(f"{run}, begun {date(record.created_at)}, changed {date(record.changed_at)}")
    write(f"  campaign {record.campaign_id}, merchant {record.merchant_id}, variant {record.variant_id}")
    write(f"  at {record.base_url}; {_progress(RunProgress.of(record, batches))}")
    for batch in batches:
        write(f"batch {batch.number}: {_batch(batch, replay_within, record)}")
    return ISSUED


@ledger_app.command
async def settle(
    run: str,
    batch: Whole,
    /,
    *,
    issued: Flag = False,
    not_issued: Flag = False,
    job: str | None = None,
    ledger: LedgerName | None = None,
) -> int:
    """Settle a batch in doubt by hand, once you know from Thanx what happened to it.

    A held batch of an outbox can be settled while the outbox is drained.

    Parameters
    ----------
    run:
        The run's id.
    batch:
        The batch's number, as `ledger show` lists it.
    issued:
        All of its guests have their reward.
    not_issued:
        None of its guests has one: the next `issue` of the run, or the drain of the outbox, sends the guests
        again, unless the batch has a job. After a conflict of idempotency keys (422), make sure at Thanx: an
        earlier run, or a copy of this ledger, may have issued the batch.
    job:
        Thanx accepted it as this job, which is checked first, and which `resume` or the drain then follows.
    ledger:
        The ledger's file, or postgresql://...; by default the user's own file.
    """
    if [issued, not_issued, job is not None].count(True) != 1:
        raise ConfigurationError("give one of --issued, --not-issued and --job ID")
    async with open_ledger(ledger) as opened:
        record = await known_run(opened, run)
        async with _claimed(opened, record) as is_claimed:
            found = await _find_in_doubt(opened, record, batch)
            if job is not None and found.job_id is not None:
                raise ConfigurationError(f"it is job {found.job_id} already: say --issued or --not-issued")
            settlement: Settlement = job
            if job is not None:
                await _check_job(job, record, found, opened)
            elif issued or found.state is not BatchState.IN_DOUBT:
                settlement = _by_hand(len(found.positions), issued=issued)
            await _settle(opened, found, settlement, is_claimed=is_claimed)
    write(f"batch {batch} of run {run} is settled")
    return ISSUED


@asynccontextmanager
async def _claimed(ledger: AnyLedger, run: RunRecord) -> AsyncIterator[bool]:
    """Claim a run within the block; False for an outbox that another process drains.

    Raises:
        ConfigurationError: the run cannot be claimed.
    """
    try:
        await ledger.claim(run)
    except LedgerError as error:
        if not (isinstance(error, LeaseError) and run.run_id.startswith(LANES)):
            raise ConfigurationError(*error.args) from error
        is_claimed = False
    else:
        is_claimed = True
    try:
        yield is_claimed
    finally:
        if is_claimed:
            await ledger.release(run.run_id)


async def _find_in_doubt(ledger: AnyLedger, run: RunRecord, number: int) -> BatchRecord:
    found = next((row for row in await ledger.batches(run.run_id) if row.number == number), None)
    if found is None or not await _is_in_doubt(found, run):
        raise ConfigurationError(
            f"run {run.run_id!r} has no batch {number} in doubt;"
            f" see {command('ledger show', ledger, run.run_id)}"
        )
    return found


async def _settle(ledger: AnyLedger, batch: BatchRecord, settlement: Settlement, *, is_claimed: bool) -> None:
    run, number = batch.run_id, batch.number
    if not is_claimed:
        with before_sending():
            await ledger.settle(run, number, settlement)
    elif isinstance(settlement, BatchOutcome):
        await ledger.finish(run, {number: settlement})
    elif settlement is not None:
        await ledger.accept(run, number, settlement)
    else:
        await ledger.withdraw(run, number)


async def _is_in_doubt(batch: BatchRecord, run: RunRecord) -> bool:
    """Whether Thanx never answered, or the job ended without saying who got a reward."""
    if batch.state is not BatchState.ACCEPTED or batch.job_id is None:
        return batch.state is BatchState.IN_DOUBT
    async with connect() as client:
        job = await client.get_issuance_job(batch.job_id, merchant_id=run.merchant_id)
    return job.is_finished and outcome_of(job, len(batch.positions)) is None


def _by_hand(guests: int, *, issued: bool) -> BatchOutcome:
    failures = () if issued else tuple((index, "not issued, as settled by hand") for index in range(guests))
    return BatchOutcome("settled by hand", guests - len(failures), failures)


async def _check_job(job_id: str, run: RunRecord, batch: BatchRecord, ledger: AnyLedger) -> None:
    """Check that the job can be the batch's: a wrong one would settle the batch for good.

    Raises:
        ConfigurationError: it can't be this batch's job.
        ThanxError: Thanx doesn't know the job, or doesn't answer.
    """
    if other := await ledger.batch_of(job_id):
        raise ConfigurationError(
            f"job {job_id} is batch {other.number} of run {other.run_id} already: nothing settled"
        )
    guests = len(batch.positions)
    async with connect() as client:
        job = await client.get_issuance_job(job_id, merchant_id=run.merchant_id)
    if job.total_count != guests or (job.campaign_id or run.campaign_id) != run.campaign_id:
        raise ConfigurationError(
            f"job {job_id} has {amount(job.total_count, 'guest')} of campaign {job.campaign_id}; the batch"
            f" has {guests:,} of {run.campaign_id}. Nothing was settled"
        )


def _progress(row: RunProgress) -> str:
    if row.run.revoked_at is not None:
        left = row.to_take_back
        more = f", {amount(left, 'job')} not taken back yet: give `revoke` again" if left else ""
        return f"revoked on {date(row.run.revoked_at)}{more}"
    if row.is_complete:
        return f"complete: {row.issued:,} issued"
    return states(row)


def _batch(batch: BatchRecord, replay_within: float, run: RunRecord) -> str:
    places = batch.positions
    text = f"positions {places.first} to {places.last}, {amount(len(places), 'guest')}, "
    if batch.outcome:
        text += f"{batch.outcome.state}: {batch.outcome.issued:,} issued"
    elif batch.state is BatchState.IN_DOUBT:
        held = batch.held_because(replay_within)
        then = f"{held}: settle it" if held else "will be sent again"
        then = "not sent again, since the run was revoked: settle it" if run.revoked_at else then
        text += f"in doubt since {date(batch.recorded_at)} ({then}), key {batch.key}"
    else:
        text += f"accepted ({batch.held}: settle it)" if batch.held else "accepted"
    return text + (f", job {batch.job_id}" if batch.job_id else "")

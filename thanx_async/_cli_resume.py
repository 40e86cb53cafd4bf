"""The commands that take up and take back recorded runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from thanx_async._cli_ledger import LedgerFile, known_run, open_ledger
from thanx_async._cli_output import Display, show_revocation, write
from thanx_async._cli_run import conclude, connect
from thanx_async._cli_status import ISSUED, STOPPED
from thanx_async.batcher import AsyncBatcher
from thanx_async.errors import BatchError, ThanxError
from thanx_async.ledger import SQLiteLedger


async def resume(run: str, /, *, ledger: LedgerFile = None) -> int:
    """Take up a run that was stopped, without its file: send again what is in doubt, wait, and report.

    Parameters
    ----------
    run:
        The run's id.
    ledger:
        The ledger's file; by default the user's own.
    """
    with Display() as display:
        async with _recorded(run, ledger, display) as (opened, batcher):
            problem: ThanxError | None = None
            try:
                resumed = await batcher.resume(run)
            except BatchError as error:
                resumed, problem = error.run, error
            try:
                report = resumed.report() if problem else await resumed.wait()
            except ThanxError as error:
                report, problem = resumed.report(), error
            record = await known_run(opened, run)
            unsent = record.batches is None or record.batches > len(await opened.batches(run))
            old = opened.replay_within
    status = conclude(report, problem, of="sent and recorded")
    if report.in_doubt and problem is None:
        write(f"What is in doubt for longer than {old / 3600:g} h is not sent again: see `ledger settle`")
    if unsent:
        write("Not all of the file was sent: run `issue` with it again for the rest")
        return STOPPED
    return status


async def revoke(run: str, /, *, ledger: LedgerFile = None) -> int:
    """Take back the rewards of all jobs of a run, waiting for those that still run.

    Parameters
    ----------
    run:
        The run's id.
    ledger:
        The ledger's file; by default the user's own.
    """
    with Display() as display:
        async with _recorded(run, ledger, display) as (_, batcher):
            report = await (await batcher.resume(run, replay=False)).revoke()
    show_revocation(report)
    return STOPPED if report.not_revoked else ISSUED


@asynccontextmanager
async def _recorded(
    run_id: str, path: LedgerFile, display: Display
) -> AsyncIterator[tuple[SQLiteLedger, AsyncBatcher]]:
    """The ledger and a batcher for a recorded run."""
    async with open_ledger(path) as ledger, connect() as client:
        display.watch(client)
        record = await known_run(ledger, run_id)
        batcher = AsyncBatcher(
            client,
            campaign_id=record.campaign_id,
            merchant_id=record.merchant_id,
            variant_id=record.variant_id,
            ledger=ledger,
            on_progress=display.progress,
        )
        yield ledger, batcher

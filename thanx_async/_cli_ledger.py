"""The commands for recorded runs, and where they are recorded."""

from __future__ import annotations

import hashlib
from contextlib import nullcontext
from datetime import datetime
from pathlib import Path
from time import time
from typing import Annotated

import cyclopts
import platformdirs
from cyclopts import Parameter

from thanx_async._cli_output import Display, write
from thanx_async._cli_run import connect
from thanx_async._cli_status import ISSUED
from thanx_async.client import ThanxClient
from thanx_async.errors import ConfigurationError
from thanx_async.ledger import BatchOutcome, BatchRecord, BatchState, RunRecord, SQLiteLedger

LedgerFile = Path | None
Flag = Annotated[bool, Parameter(negative=())]
ledger_app = cyclopts.App(name="ledger", help="Look at recorded runs, and settle what is in doubt by hand.")


def open_ledger(path: LedgerFile) -> SQLiteLedger:
    """The ledger at a path, which must be there, or the user's own."""
    if path is not None and not path.exists():
        raise ConfigurationError(f"there is no ledger {path}")
    return _ledger(path)


def _ledger(path: LedgerFile) -> SQLiteLedger:
    return SQLiteLedger(path or _own_folder() / "ledger.sqlite")


def _own_folder() -> Path:
    folder = platformdirs.user_state_path("thanx-async", appauthor=False)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"cannot write in {folder}, where runs are recorded ({error.strerror}): give --ledger PATH"
        ) from error
    return folder


def optional_ledger(path: LedgerFile, *, wanted: bool) -> SQLiteLedger | nullcontext[None]:
    return _ledger(path) if wanted else nullcontext()


def run_id_of(file: str, client: ThanxClient, target: tuple[str, str, str]) -> str:
    """The run of a file: the same for the same file, target and credential, whatever the file holds."""
    path = Path(file).resolve()
    identity = "\n".join((str(path), client.base_url, client.client_id, *target))
    return f"{path.name}-{hashlib.sha256(identity.encode(errors='surrogateescape')).hexdigest()[:10]}"


async def announce(ledger: SQLiteLedger, run_id: str | None, display: Display) -> None:
    """Say how far a run has come before.

    Raises:
        ConfigurationError: it is complete, so that starting it again is not what was meant.
    """
    known = await ledger.run(run_id) if run_id else None
    if known is None:
        return
    batches = await ledger.batches(known.run_id)
    if known.revoked_at is None and known.is_complete(batches):
        raise ConfigurationError(
            f"run {known.run_id} is already complete: {_issued(batches):,} issued on"
            f" {_date(known.changed_at)}. Nothing was sent. Put new guests in a file of their own: a new"
            " --run-id issues to everybody in this one once more"
        )
    display.say(f"Continuing run {known.run_id} of {_date(known.created_at)}: {_states(batches)}")


async def known_run(ledger: SQLiteLedger, run_id: str) -> RunRecord:
    """A run that must be recorded."""
    record = await ledger.run(run_id)
    if record is None:
        raise ConfigurationError(f"the ledger {ledger.path} knows no run {run_id!r}; see `ledger runs`")
    return record


@ledger_app.command
async def runs(*, ledger: LedgerFile = None) -> int:
    """List the recorded runs, oldest first.

    Parameters
    ----------
    ledger:
        The ledger's file; by default the user's own.
    """
    async with open_ledger(ledger) as opened:
        for record in await opened.runs():
            batches = await opened.batches(record.run_id)
            write(f"{record.run_id}  {_date(record.created_at)}  {_progress(record, batches)}")
    return ISSUED


@ledger_app.command
async def show(run: str, /, *, ledger: LedgerFile = None) -> int:
    """Show a run and its batches.

    Parameters
    ----------
    run:
        The run's id.
    ledger:
        The ledger's file; by default the user's own.
    """
    async with open_ledger(ledger) as opened:
        record = await known_run(opened, run)
        batches = await opened.batches(run)
    write(f"{run}, begun {_date(record.created_at)}, changed {_date(record.changed_at)}")
    write(f"  campaign {record.campaign_id}, merchant {record.merchant_id}, variant {record.variant_id}")
    write(f"  at {record.base_url}; {_progress(record, batches)}")
    for batch in batches:
        write(f"batch {batch.number}: {_batch(batch, opened.replay_within)}")
    return ISSUED


@ledger_app.command
async def settle(
    run: str,
    batch: int,
    /,
    *,
    issued: Flag = False,
    not_issued: Flag = False,
    job: str | None = None,
    ledger: LedgerFile = None,
) -> int:
    """Decide by hand what became of a batch in doubt, once you know it from Thanx.

    Parameters
    ----------
    run:
        The run's id.
    batch:
        The batch's number, as `ledger show` lists it.
    issued:
        All of its guests have their reward.
    not_issued:
        None of them has: the next `issue` of the run sends it again.
    job:
        It was accepted as this job, which is looked at first, and which `resume` then follows.
    ledger:
        The ledger's file; by default the user's own.
    """
    if [issued, not_issued, job is not None].count(True) != 1:
        raise ConfigurationError("say one of --issued, --not-issued and --job ID")
    async with open_ledger(ledger) as opened:
        record = await opened.claim(await known_run(opened, run))
        try:
            found = [row for row in await opened.batches(run) if row.number == batch]
            if not found or found[0].state is not BatchState.IN_DOUBT:
                raise ConfigurationError(
                    f"run {run!r} has no batch {batch} in doubt; see `ledger show {run}`"
                )
            if job is not None:
                await _check_job(job, record, len(found[0].positions))
                await opened.accept(run, batch, job)
            elif issued:
                await opened.finish(run, {batch: BatchOutcome("settled by hand", len(found[0].positions))})
            else:
                await opened.withdraw(run, batch)
        finally:
            await opened.release(run)
    write(f"batch {batch} of run {run} is settled")
    return ISSUED


async def _check_job(job_id: str, run: RunRecord, guests: int) -> None:
    """A wrong job would settle the batch for good.

    Raises:
        ConfigurationError: it cannot be this batch's.
        ThanxError: Thanx does not know it, or does not answer.
    """
    async with connect() as client:
        job = await client.get_issuance_job(job_id, merchant_id=run.merchant_id)
    if job.total_count != guests or (job.campaign_id or run.campaign_id) != run.campaign_id:
        raise ConfigurationError(
            f"job {job_id} has {job.total_count:,} guests of campaign {job.campaign_id}; the batch has"
            f" {guests:,} of {run.campaign_id}. Nothing was settled"
        )


def _progress(record: RunRecord, batches: list[BatchRecord]) -> str:
    if record.revoked_at is not None:
        return f"revoked on {_date(record.revoked_at)}"
    if record.is_complete(batches):
        return f"complete: {_issued(batches):,} issued"
    return _states(batches)


def _states(batches: list[BatchRecord]) -> str:
    counts = {state: sum(1 for batch in batches if batch.state is state) for state in BatchState}
    return (
        f"{counts[BatchState.FINISHED]:,} batches finished, {counts[BatchState.ACCEPTED]:,} accepted,"
        f" {counts[BatchState.IN_DOUBT]:,} in doubt"
    )


def _issued(batches: list[BatchRecord]) -> int:
    return sum(batch.outcome.issued for batch in batches if batch.outcome)


def _batch(batch: BatchRecord, replay_within: float) -> str:
    places = batch.positions
    text = f"positions {places.first} to {places.last}, {len(places):,} guests, "
    if batch.outcome:
        text += f"{batch.outcome.state}: {batch.outcome.issued:,} issued"
    elif batch.state is BatchState.IN_DOUBT:
        old = time() - batch.recorded_at > replay_within
        then = "too old to be sent again: settle it" if old else "will be sent again"
        text += f"in doubt since {_date(batch.recorded_at)} ({then}), key {batch.key}"
    else:
        text += "accepted"
    return text + (f", job {batch.job_id}" if batch.job_id else "")


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M")

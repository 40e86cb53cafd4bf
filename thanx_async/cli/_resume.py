"""The commands that resume and revoke recorded runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from thanx_async._core.errors import ConfigurationError, ThanxError
from thanx_async.batcher import AsyncBatcher, IssuanceRun
from thanx_async.batching import BatchError
from thanx_async.cli._answer import Answer, revocation_fields, verification_fields
from thanx_async.cli._asking import confirm
from thanx_async.cli._client import PATIENT, connect
from thanx_async.cli._display import Display
from thanx_async.cli._driving import conclude
from thanx_async.cli._failures import failure_file
from thanx_async.cli._options import Dsn, FileName, Flag, LedgerName
from thanx_async.cli._output import show_revocation, show_verification
from thanx_async.cli._recorded import (
    AnyLedger,
    before_sending,
    command,
    date,
    known_run,
    open_ledger,
    path_of,
)
from thanx_async.cli._status import ISSUED, STOPPED
from thanx_async.cli._words import amount
from thanx_async.ledger import LANES, RunRecord


async def resume(
    run: str,
    /,
    *,
    failures: FileName | None = None,
    ledger: LedgerName | None = None,
    json: Flag = False,
) -> int:
    """
    Parameters
    ----------
    run:
        The run's id.
    failures:
        A CSV file to write: position, fate and reason of each guest who failed; values are not recorded.
    ledger:
        The ledger's file, or postgresql://...; by default the user's own file.
    json:
        Print the report as JSON.
    """
    answer = Answer(json=json)
    async with AsyncExitStack() as files:
        async with Display() as display, _recorded(run, ledger, display) as (opened, batcher):
            rows = await files.enter_async_context(failure_file(failures, source="", ledger=path_of(opened)))
            problem: ThanxError | None = None
            try:
                with before_sending():
                    resumed = await batcher.resume(run)
            except BatchError as error:
                resumed, problem = error.run, error
            display.follow(resumed)
            try:
                report = resumed.report() if problem else await resumed.wait()
            except ThanxError as error:
                report, problem = resumed.report(), error
            record = await known_run(opened, run)
            unsent = record.batches is None or record.batches > len(await opened.batches(run))
        status = conclude(resumed, report, problem, rows, of="sent and recorded", answer=answer)
    if report.in_doubt and problem is None:
        old = f"for longer than {record.replayed_within(opened.replay_within) / 3600:g} h"
        why = old if record.revoked_at is None else "in a revoked run"
        answer.line(
            f"Batches in doubt {why}, or whose job gives no outcome, are not sent again: see `ledger settle`"
        )
    if run.startswith(LANES):
        answer.line("Guests who wait in an outbox are sent by `outbox drain`")
    elif unsent:
        answer.line("Not all of the file was sent: run `issue` with it again for the rest")
        return answer.end(STOPPED)
    return answer.end(status)


async def revoke(
    run: str, /, *, yes: Flag = False, ledger: LedgerName | None = None, json: Flag = False
) -> int:
    """
    Parameters
    ----------
    run:
        The run's id.
    yes:
        Do not ask.
    ledger:
        The ledger's file, or postgresql://...; by default the user's own file.
    json:
        Print the report as JSON.
    """
    display, answer = Display(), Answer(json=json)
    async with _recorded(run, ledger, display) as (opened, batcher):
        with before_sending():
            resumed = await batcher.resume(run, replay=False)
        await _check_doubts(opened, run)
        record = await known_run(opened, run)
        if not await confirm(_about_to_revoke(resumed, record), yes=yes, tell=answer.aside):
            answer.line("Nothing was taken back")
            return answer.end(STOPPED)
        async with display:
            report = await resumed.revoke()
    answer.show(lambda: revocation_fields(report), lambda: show_revocation(report))
    return answer.end(STOPPED if report.not_revoked else ISSUED)


async def verify(
    run: str, /, *, sample: float = 1.0, ledger: LedgerName | None = None, json: Flag = False
) -> int:
    """
    Parameters
    ----------
    run:
        The run's id.
    sample:
        The share of these jobs to poll, from 0 to 1.
    ledger:
        The ledger's file, or postgresql://...; by default the user's own file.
    json:
        Print the report as JSON.
    """
    answer = Answer(json=json)
    async with Display() as display, _recorded(run, ledger, display) as (opened, batcher):
        with before_sending():
            await known_run(opened, run)
            resumed = await batcher.resume(run, replay=False)
        report = await resumed.verify(sample)
    answer.show(lambda: verification_fields(report), lambda: show_verification(report))
    return answer.end(STOPPED if report.disagreeing or report.unchecked else ISSUED)


def _about_to_revoke(run: IssuanceRun, record: RunRecord) -> str:
    """What is about to be taken back, as far as it is known."""
    counts, jobs = run.report().counts, len(run.handles)
    what = f"{amount(counts['issued'], 'reward')} of {amount(jobs, 'job')}"
    if unfinished := counts["unfinished"]:
        what += f", and those of {amount(unfinished, 'guest')} whose jobs still run,"
    return (
        f"Run {record.run_id} of {date(record.created_at)}, campaign {record.campaign_id}, variant"
        f" {record.variant_id}: {what} will be taken back from their guests"
    )


async def _check_doubts(ledger: AnyLedger, run: str) -> None:
    """Check for batches in doubt: a revoked run sends nothing again, so their jobs could never be found.

    Raises:
        ConfigurationError: `resume` could still settle a batch in doubt.
    """
    doubts = [batch for batch in await ledger.in_doubt() if batch.run_id == run]
    record = await known_run(ledger, run)
    within = record.replayed_within(ledger.replay_within)
    young = [batch for batch in doubts if not batch.is_older_than(within)]
    if young and record.revoked_at is None:
        raise ConfigurationError(
            f"{amount(len(young), 'batch')} of run {run} {'is' if len(young) == 1 else 'are'} in doubt, and"
            f" cannot be taken back before the jobs are known: give {command('resume', ledger, run)} first,"
            " or settle them"
        )


@asynccontextmanager
async def _recorded(
    run_id: str, place: Path | Dsn | None, display: Display
) -> AsyncIterator[tuple[AnyLedger, AsyncBatcher]]:
    """The ledger, and a batcher for a run that it has recorded."""
    async with open_ledger(place) as ledger, connect(retry=PATIENT, store=place) as client:
        display.watch(client)
        display.expect(lambda run: run.total)  # all that was recorded is read at once
        with before_sending():
            record = await known_run(ledger, run_id)
        batcher = AsyncBatcher(
            client,
            campaign_id=record.campaign_id,
            merchant_id=record.merchant_id,
            variant_id=record.variant_id,
            ledger=ledger,
            on_progress=display.follow,
        )
        yield ledger, batcher

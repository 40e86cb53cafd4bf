"""The commands for single jobs."""

from __future__ import annotations

import cyclopts

from thanx_async._core.errors import ConfigurationError
from thanx_async.cli._answer import Answer, job_fields, write_json
from thanx_async.cli._asking import confirm
from thanx_async.cli._client import connect
from thanx_async.cli._options import Flag
from thanx_async.cli._output import write
from thanx_async.cli._status import ISSUED, SOME_FAILED, STOPPED
from thanx_async.cli._words import amount
from thanx_async.models import IssuanceJob

job_app = cyclopts.App(name="job")


@job_app.command
async def show(job_id: str, /, *, merchant: str, json: Flag = False) -> int:
    """Show a job's current state.

    Parameters
    ----------
    job_id:
        The job's id at Thanx.
    merchant:
        The job's merchant.
    json:
        Print JSON.
    """
    async with connect() as client:
        _show_job(await client.get_issuance_job(job_id, merchant_id=merchant), json=json)
    return ISSUED


@job_app.command
async def wait(job_id: str, /, *, merchant: str, timeout: float | None = None, json: Flag = False) -> int:
    """Wait until a job is finished.

    Parameters
    ----------
    job_id:
        The job's id at Thanx.
    merchant:
        The job's merchant.
    timeout:
        The longest wait, in seconds; by default there is no limit.
    json:
        Print JSON.
    """
    if timeout is not None and not timeout > 0:
        raise ConfigurationError(f"--timeout must be more than 0 s, not {timeout:g}")
    async with connect() as client:
        job = await client.job(job_id, merchant_id=merchant).wait(timeout=timeout)
    _show_job(job, json=json)
    return ISSUED if job.state == "completed" and not job.failure_count else SOME_FAILED


@job_app.command
async def revoke(job_id: str, /, *, merchant: str, yes: Flag = False, json: Flag = False) -> int:
    """Take back the rewards of a finished job.

    Parameters
    ----------
    job_id:
        The job's id at Thanx.
    merchant:
        The job's merchant.
    yes:
        Do not ask.
    json:
        Print JSON.
    """
    answer = Answer(json=json)
    async with connect() as client:
        handle = client.job(job_id, merchant_id=merchant)
        job = await handle.refresh()
        rewards = amount(job.success_count, "reward")
        what = f"Job {job.id}, {job.state}: {rewards} will be taken back from their guests"
        if not await confirm(what, yes=yes, tell=answer.aside):
            answer.line("Nothing was taken back")
            return answer.end(STOPPED)
        _show_job(await handle.revoke(), json=json)
    return ISSUED


def _show_job(job: IssuanceJob, *, json: bool) -> None:
    if json:
        write_json(job_fields(job))
        return
    write(f"{job.id}: {job.state}, {job.processed_count:,} of {job.total_count:,} processed")
    if job.state == "revoked":
        write("  its rewards were taken back")
    else:
        write(f"  {job.success_count:,} issued, {job.failure_count:,} failed")

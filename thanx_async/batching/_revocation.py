"""Revokes the jobs of a run, concurrently, and reports the batches that could not be revoked."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from thanx_async._core.errors import ThanxError
from thanx_async.batching._batch import Batch
from thanx_async.batching._report import NotRevoked, RevocationReport
from thanx_async.jobs import JobHandle, revoke_in_bulk


async def revoke_batches(run_id: str, batches: Sequence[Batch]) -> RevocationReport:
    """Revoke the jobs of all batches concurrently."""
    accepted = [(batch, batch.handle) for batch in batches if batch.handle]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_revoke(batch, handle)) for batch, handle in accepted]
    results = [(batch, *task.result()) for (batch, _), task in zip(accepted, tasks, strict=True)]
    unknown = [
        NotRevoked(batch.range(), "it is not known which job issued it")
        for batch in batches
        if not batch.handle and (batch.issued or batch.is_in_doubt)
    ]
    return RevocationReport(
        run_id=run_id,
        rewards=sum(rewards for _, rewards, reason in results if reason is None),
        revoked=[batch.range() for batch, _, reason in results if reason is None],
        not_revoked=unknown + [NotRevoked(batch.range(), reason) for batch, _, reason in results if reason],
    )


async def _revoke(batch: Batch, handle: JobHandle) -> tuple[int, str | None]:
    """Revoke one job. Returns the number of rewards revoked, and the reason if it was not revoked."""
    try:
        job = await handle.wait()
        batch.settle_from_job()  # a revoked job no longer tells who had got no reward
        rewards = 0 if job.state == "revoked" else job.success_count
        if job.state != "revoked":
            await _request_revocation(handle)
            job = await handle.wait()
    except Exception as error:  # noqa: BLE001 - a limiter of the user's may raise anything
        return 0, str(error) if isinstance(error, ThanxError) else type(error).__name__
    batch.settle_from_job()
    return rewards, None if job.state == "revoked" else f"the job is {job.state}"


async def _request_revocation(handle: JobHandle) -> None:
    """Request the revocation. If the answer is lost, the job's state tells whether Thanx has acted."""
    try:
        await revoke_in_bulk(handle)
    except ThanxError:
        job = await handle.refresh()
        if job.state not in {"revoking", "revoked"}:
            raise

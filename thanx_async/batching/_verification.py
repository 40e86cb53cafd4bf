"""Polls jobs whose outcome an event told, and reports where the event was wrong."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from math import ceil

from thanx_async._core.errors import ThanxError
from thanx_async.batching._batch import Batch
from thanx_async.batching._report import NotVerified, VerificationReport
from thanx_async.jobs import JobHandle, difference
from thanx_async.models import IssuanceJob

_CONCURRENCY = 8


async def verify_batches(run_id: str, batches: Sequence[Batch], sample: float) -> VerificationReport:
    """Poll a random sample of the jobs whose outcome an event told."""
    told = [
        (batch, batch.handle, batch.handle.job)
        for batch in batches
        if batch.handle and batch.handle.job and batch.handle.job.by_event
    ]
    chosen = random.sample(told, ceil(sample * len(told)))
    slots = asyncio.Semaphore(_CONCURRENCY)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_verify(*row, slots)) for row in chosen]
    report = VerificationReport(run_id, [], [], [])
    for (batch, *_), task in zip(chosen, tasks, strict=True):
        is_compared, what = task.result()
        if not what:
            report.confirmed.append(batch.range())
        else:
            rows = report.disagreeing if is_compared else report.unchecked
            rows.append(NotVerified(batch.range(), what))
    return report


async def _verify(
    batch: Batch, handle: JobHandle, told: IssuanceJob, slots: asyncio.Semaphore
) -> tuple[bool, str]:
    """Poll one job. Returns whether it could be compared, and the difference, or why it could not."""
    try:
        async with slots:
            job = await handle.refresh()
        if not job.is_finished:
            job = await handle.wait()
    except Exception as error:  # noqa: BLE001 - a limiter of the user's may raise anything
        return False, str(error) if isinstance(error, ThanxError) else type(error).__name__
    batch.settle_from_job()
    if job.state == "revoked":
        return False, "its rewards were revoked"
    what = difference(told, job)
    return (True, what) if what is not None else (False, "the poll does not tell who got a reward")

"""`JobHandle`: waits for one job, shows its progress and revokes it; and `JobTimeoutError`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator, Iterable

from thanx_async._core import checks
from thanx_async._core.errors import ConfigurationError, ThanxError
from thanx_async._core.escaping import printable
from thanx_async.jobs._poller import JobPoller
from thanx_async.limiter import Lane
from thanx_async.models import IssuanceJob


class JobTimeoutError(ThanxError):
    """The job did not finish within the timeout. It continues at Thanx, and can be waited for again.

    ``job_id`` is the id of the job, and ``job`` its latest snapshot, None if there is none.
    """

    __module__ = "thanx_async.errors"

    def __init__(self, message: str, *, job_id: str, job: IssuanceJob | None) -> None:
        super().__init__(message)
        self.job_id = job_id
        self.job = job


class JobHandle:
    """An issuance job at Thanx. ``job = await handle`` waits until the job has finished.

    All handles of a job share its polls. To wait in a task: ``asyncio.create_task(handle.wait())``, or
    ``asyncio.ensure_future(handle)``.

    Attributes:
        id, merchant_id: identify the job at Thanx.
        start: the position in the input of the job's first identifier, from 0.
        total: the number of identifiers in the job, 0 if unknown.
    """

    __slots__ = ("_poller", "id", "merchant_id", "start", "total")

    def __init__(
        self, job_id: str, merchant_id: str, *, poller: JobPoller | None, start: int = 0, total: int = 0
    ) -> None:
        self.id: str = job_id
        self.merchant_id: str = merchant_id
        self.start: int = start
        self.total: int = total
        self._poller = poller

    def __reduce__(self) -> tuple[object, ...]:
        return _detached, (self.id, self.merchant_id, self.start, self.total)

    def __repr__(self) -> str:
        state = f"{self.job.state} {self.job.processed_count}/{self.total}" if self.job else "not polled yet"
        return f"<JobHandle {printable(self.id)}: {state}>"

    @property
    def job(self) -> IssuanceJob | None:
        """The latest snapshot, None before the first poll."""
        return self._poller.job if self._poller else None

    @property
    def rewards_seen(self) -> int:
        """The number of guests whose reward a webhook (``reward.issued``) has reported, each counted once."""
        return self._poller.signs.count if self._poller else 0

    def __await__(self) -> Generator[object, None, IssuanceJob]:
        return self.wait().__await__()

    async def refresh(self) -> IssuanceJob:
        """Poll the job now, which takes one request of the rate limits."""
        return await self._attached.refresh()

    async def wait(self, *, timeout: float | None = None) -> IssuanceJob:
        """Wait until the job has finished: completed, failed or revoked.

        Args:
            timeout: in seconds; None for as long as it takes.

        Raises:
            JobTimeoutError: the job is still running. The error holds the latest snapshot, and the caller can
                wait again.
            ThanxError: Thanx refused a poll, such as with a 401 or a 404. Outages are waited out.
        """
        checks.timeout(timeout)
        poller = self._attached
        try:
            async with asyncio.timeout(timeout) as scope:
                while not (poller.job and poller.job.is_finished):
                    await poller.newer(poller.version)
        except TimeoutError as error:
            if not scope.expired():
                raise
            state = poller.job.state if poller.job else "unknown"
            raise JobTimeoutError(
                f"job {self.id} was not finished after {timeout:g} s (state: {state}); it continues at Thanx",
                job_id=self.id,
                job=poller.job,
            ) from error
        return poller.job

    async def updates(self) -> AsyncGenerator[IssuanceJob, None]:
        """Yield the latest snapshot, then one for each change of state or progress, until the job ends.

        Where a loop over it may be left early, ``async with contextlib.aclosing(handle.updates())`` ends it.

        Raises:
            ThanxError: Thanx refused a poll, such as with a 401 or a 404. Outages are waited out.
        """
        poller = self._attached
        shown: IssuanceJob | None = None
        while True:
            job, version = poller.job, poller.version
            if job and (shown is None or _progress_of(job) != _progress_of(shown)):
                shown = job
                yield job
            if job and job.is_finished:
                return
            await poller.newer(version)

    async def revoke(self) -> IssuanceJob:
        """Revoke the job's rewards. Thanx allows this once the job is completed or failed.

        Raises:
            UnprocessableError: the job is still running, or is revoked already.
        """
        return await self._attached.revoke(Lane.INTERACTIVE)

    @property
    def _attached(self) -> JobPoller:
        if self._poller is None:
            raise ConfigurationError(
                f"the handle of job {self.id} was unpickled and has no client;"
                f" use client.job({self.id!r}, merchant_id={self.merchant_id!r})"
            )
        return self._poller


async def revoke_in_bulk(handle: JobHandle) -> IssuanceJob:
    """Revoke a job's rewards as one of many, behind requests for which somebody waits."""
    return await handle._attached.revoke(Lane.ISSUE)  # noqa: SLF001 - the class is in this module


def when_finished(handle: JobHandle, mark: Callable[[], object], act: Callable[[], object]) -> None:
    """Call ``mark`` once the handle's job has finished, whoever polled it, and ``act`` soon after that."""
    if poller := handle._poller:  # noqa: SLF001 - not a method, since users await the handle
        poller.when_finished(mark, act)


def time_left(handle: JobHandle) -> float | None:
    """Seconds until the handle's job should finish; None until the speed of jobs is known."""
    poller = handle._poller  # noqa: SLF001 - as above
    return poller.time_left() if poller else None


def usual_time(handles: Iterable[JobHandle], total: int) -> float:
    """Seconds that a job of ``total`` guests takes, as far as these handles know, otherwise 0."""
    pollers = (handle._poller for handle in handles)  # noqa: SLF001 - as above
    poller = next(filter(None, pollers), None)
    return (poller and poller.usual_time(total)) or 0.0


def _detached(job_id: str, merchant_id: str, start: int, total: int) -> JobHandle:
    return JobHandle(job_id, merchant_id, poller=None, start=start, total=total)


def _progress_of(job: IssuanceJob) -> tuple[object, ...]:
    return job.state, job.processed_count, job.success_count, job.failure_count, job.progress_percent

"""A handle on a job: an id and a connection, awaitable, that polls sparingly."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Generator

from thanx_async._core import checks
from thanx_async._core.errors import ConfigurationError, ThanxError
from thanx_async.jobs._poller import JobPoller
from thanx_async.models import IssuanceJob


class JobTimeoutError(ThanxError):
    """The job was not finished in the time allowed; it goes on at Thanx.

    ``job_id`` names it, and ``job`` is the last snapshot (None if none was fetched).
    """

    __module__ = "thanx_async.errors"

    def __init__(self, message: str, *, job_id: str, job: IssuanceJob | None) -> None:
        super().__init__(message)
        self.job_id = job_id
        self.job = job


class JobHandle:
    """One job of Thanx's, as accepted. ``job = await handle`` waits for its end.

    Attributes:
        id, merchant_id: what names the job at Thanx.
        start: the position in the input of the job's first identifier.
        total: how many identifiers the job was given, 0 if that is not known.
    """

    __slots__ = ("_poller", "id", "merchant_id", "start", "total")

    def __init__(
        self, job_id: str, merchant_id: str, *, poller: JobPoller | None, start: int = 0, total: int = 0
    ) -> None:
        self.id = job_id
        self.merchant_id = merchant_id
        self.start = start
        self.total = total
        self._poller = poller

    def __reduce__(self) -> tuple[object, ...]:
        return _detached, (self.id, self.merchant_id, self.start, self.total)

    def __repr__(self) -> str:
        state = f"{self.job.state} {self.job.processed_count}/{self.total}" if self.job else "not looked at"
        return f"<JobHandle {self.id}: {state}>"

    @property
    def job(self) -> IssuanceJob | None:
        """The latest snapshot, None before the first."""
        return self._poller.job if self._poller else None

    @property
    def rewards_seen(self) -> int:
        """Guests of whose reward a webhook (``reward.issued``) has told so far, each counted once."""
        return self._poller.signs.count if self._poller else 0

    def __await__(self) -> Generator[object, None, IssuanceJob]:
        return self.wait().__await__()

    async def refresh(self) -> IssuanceJob:
        """Ask Thanx now, which costs one request."""
        return await self._attached.refresh()

    async def wait(self, *, timeout: float | None = None) -> IssuanceJob:
        """Wait until the job is finished (completed, failed or revoked).

        Args:
            timeout: seconds, None for as long as it takes.

        Raises:
            JobTimeoutError: with the last snapshot; the job goes on and can be waited for again.
            ThanxError: what a poll ended in, after its retries.
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
                f"job {self.id} was not finished after {timeout:g} s (state: {state}); it goes on at Thanx",
                job_id=self.id,
                job=poller.job,
            ) from error
        return poller.job

    async def updates(self) -> AsyncIterator[IssuanceJob]:
        """The latest snapshot, then one for each change of state or progress, ending with the last."""
        poller = self._attached
        shown: IssuanceJob | None = None
        while True:
            job, version = poller.job, poller.version
            if job and (shown is None or _course(job) != _course(shown)):
                shown = job
                yield job
            if job and job.is_finished:
                return
            await poller.newer(version)

    async def revoke(self) -> IssuanceJob:
        """Take the job's rewards back. Thanx allows it once the job is completed or failed.

        Raises:
            UnprocessableError: the job still runs, or is revoked already.
        """
        return await self._attached.revoke()

    @property
    def _attached(self) -> JobPoller:
        if self._poller is None:
            raise ConfigurationError(
                f"the handle of job {self.id} was unpickled and has no client;"
                f" use client.job({self.id!r}, merchant_id={self.merchant_id!r})"
            )
        return self._poller


def _detached(job_id: str, merchant_id: str, start: int, total: int) -> JobHandle:
    return JobHandle(job_id, merchant_id, poller=None, start=start, total=total)


def _course(job: IssuanceJob) -> tuple[object, ...]:
    return job.state, job.processed_count, job.success_count, job.failure_count, job.progress_percent

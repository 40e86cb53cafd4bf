"""Waiting for jobs: what all handles of a client share, so that each poll serves everybody."""

from __future__ import annotations

import asyncio
import math
from copy import copy

from thanx_async._core.errors import (
    APIError,
    AuthenticationError,
    NotFoundError,
    PermissionDeniedError,
    ThanxError,
    TransportError,
)
from thanx_async._core.tasks import RESOLUTION, changed
from thanx_async.http import Transport, wire
from thanx_async.identifiers import MAX_BATCH
from thanx_async.instrumentation import Hook, JobRecord, emit
from thanx_async.jobs._schedule import PollSchedule
from thanx_async.jobs._speeds import JobCourse
from thanx_async.jobs._turns import PollTurns
from thanx_async.limiter import Lane, RateLimiter
from thanx_async.models import IssuanceJob

_LONGEST_WAIT = 30.0
"""Seconds between polls that get no usable answer."""


class JobService:
    """What all jobs of a client share: the way to Thanx, one schedule, and the turns at polling."""

    def __init__(self, transport: Transport, limiter: RateLimiter, hook: Hook) -> None:
        self.schedule = PollSchedule(limiter.limits)
        self.turns = PollTurns(limiter)
        self.hook = hook
        self._transport = transport
        self._limiter = limiter

    def begin_anew(self) -> None:
        """Nobody polls any more who did before."""
        self.turns = PollTurns(self._limiter)

    async def look(self, job_id: str, merchant_id: str) -> IssuanceJob:
        """Ask Thanx for a job; like everything that only looks, it waits its turn behind issuing."""
        request = wire.get_issuance_job(job_id, merchant_id)
        return await self._transport.call(request, wire.decoder_of_job(job_id), lane=Lane.POLL)

    async def revoke(self, job_id: str, merchant_id: str) -> IssuanceJob:
        """Ask Thanx to take a job's rewards back."""
        request = wire.revoke_issuance_job(job_id, merchant_id)
        return await self._transport.call(request, wire.decoder_of_job(job_id))


class WebhookSigns:
    """What webhooks have told of a job: whether it is over, and who has a reward, a bit for each guest."""

    __slots__ = ("_bits", "count", "over")

    def __init__(self) -> None:
        self.over = False
        self.count = 0
        self._bits = bytearray()

    def add(self, index: int | None) -> None:
        """A guest has a reward; events come twice, and are counted once."""
        if index is None or not 0 <= index < MAX_BATCH:
            return
        byte, bit = index // 8, 1 << index % 8
        if byte >= len(self._bits):
            self._bits.extend(bytes(byte + 1 - len(self._bits)))
        if not self._bits[byte] & bit:
            self._bits[byte] |= bit
            self.count += 1


class JobPoller:
    """What all handles on one job share: the latest snapshot, and who polls next."""

    def __init__(self, job_id: str, merchant_id: str, service: JobService, signs: WebhookSigns) -> None:
        self.signs = signs
        self.job_id = job_id
        self.merchant_id = merchant_id
        self.job: IssuanceJob | None = None
        self.version = 0
        self._service = service
        self._schedule = service.schedule
        self._turns = service.turns
        self._course: JobCourse | None = None
        self._polling = asyncio.Lock()
        self._change = asyncio.Event()
        self._hinted = signs.over
        self._polls = 0
        self._failed_polls = 0
        self._not_before = -math.inf
        self._failures = 0
        self._failure: ThanxError | None = None

    def saw(self, job: IssuanceJob, *, accepted: bool = False) -> None:
        """Take in a snapshot, wherever it came from; ``accepted``: from the answer that made the job."""
        if accepted and self.job and self.job.is_finished and not job.is_finished:
            return  # an answer that was given again, of how the job began
        now = asyncio.get_running_loop().time()
        if self._course is None:
            self._course = self._schedule.track(job, now, accepted=accepted)
            if self.signs.over:
                self._schedule.hint(self._course, asyncio.get_running_loop().time())
        else:
            self._schedule.seen(self._course, job, now)
        ended = self._polls > 0 and job.is_finished and not (self.job and self.job.is_finished)
        self.job = job
        self.version += 1
        self._change.set()
        if ended:
            self._tell_end(job, now - self._course.since)

    def _tell_end(self, job: IssuanceJob, seconds: float) -> None:
        record = JobRecord(
            job.id, job.state, job.total_count, job.success_count, job.failure_count, seconds, self._polls
        )
        emit(self._service.hook, record)

    def hint(self) -> None:
        """There is reason to think that the job is over: look at it as soon as somebody waits for it."""
        if self.job and self.job.is_finished:
            return
        self._hinted = True
        if self._course:
            self._schedule.hint(self._course, asyncio.get_running_loop().time())
        self._change.set()

    async def refresh(self) -> IssuanceJob:
        """Poll now."""
        self._polls += 1
        job = await self._service.look(self.job_id, self.merchant_id)
        self.saw(job)
        return job

    async def revoke(self) -> IssuanceJob:
        job = await self._service.revoke(self.job_id, self.merchant_id)
        self.saw(job)
        return job

    async def newer(self, version: int) -> None:
        """Return once there is a snapshot newer than ``version``: one waiter polls for all of them.

        Raises:
            ThanxError: what the poll ended in that the caller was waiting for; the next caller polls anew.
        """
        failures = self._failures
        async with self._polling:
            if self._failure and self._failures != failures:
                raise copy(self._failure)
            if self.version != version:
                return
            try:
                await self._poll(version)
            except ThanxError as error:
                self._failures += 1
                self._failure = copy(error)
                raise

    async def _poll(self, version: int) -> None:
        """Wait until the job is due, and for a turn, and look at it; unless somebody else has looked."""
        with self._schedule.watching(self._course, self._change.set):
            while self.version == version:
                await self._until_due(version)
                async with self._turns:
                    if self.version == version and self._wait() <= RESOLUTION:
                        await self._look()

    async def _look(self) -> None:
        """Poll once. A poll without a usable answer is followed by another one, after growing waits."""
        hinted, self._hinted = self._hinted, False
        try:
            await self.refresh()
        except (AuthenticationError, PermissionDeniedError, NotFoundError):
            raise
        except (APIError, TransportError):
            self._hinted = hinted
            self._failed_polls += 1
            wait = min(_LONGEST_WAIT, 2.0 ** min(self._failed_polls - 1, 10))
            self._not_before = asyncio.get_running_loop().time() + wait
        else:
            self._failed_polls = 0

    async def _until_due(self, version: int) -> None:
        while self.version == version and (wait := self._wait()) > RESOLUTION:
            self._change.clear()
            await changed(self._change, wait)

    def _wait(self) -> float:
        """Seconds until the job is due."""
        now = asyncio.get_running_loop().time()
        due = now if self._course is None or self._hinted else self._schedule.due(self._course)
        return max(due, self._not_before) - now

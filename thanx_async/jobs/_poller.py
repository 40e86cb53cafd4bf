"""Polls one job on behalf of all its handles, when the schedule says so; keeps its latest snapshot."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from copy import copy

import attrs

from thanx_async._core.errors import (
    APIError,
    AuthenticationError,
    NotFoundError,
    PermissionDeniedError,
    ThanxError,
    TransportError,
)
from thanx_async._core.escaping import get_logger
from thanx_async._core.tasks import RESOLUTION, changed
from thanx_async.http import Transport, wire
from thanx_async.identifiers import MAX_BATCH
from thanx_async.instrumentation import Hook, JobRecord, emit
from thanx_async.jobs._audits import Audits
from thanx_async.jobs._claims import Claim, Sent, difference, mismatch, weighed
from thanx_async.jobs._schedule import PollSchedule
from thanx_async.jobs._speeds import JobCourse
from thanx_async.jobs._trust import EventTrust
from thanx_async.jobs._turns import PollTurns
from thanx_async.limiter import Lane, RateLimiter
from thanx_async.models import IssuanceJob

_log = get_logger("thanx_async.webhooks")

_LONGEST_WAIT = 30.0
"""The longest wait, in seconds, between polls without a usable answer."""

_MAX_CLAIMS = 2


class JobService:
    """The parts that all jobs of a client share: the transport, the schedule, the poll turns and the hook.

    Args:
        transport: sends the requests.
        limiter: the rate limiter.
        hook: gets a record when a job has ended.
        trust: the trust in events that tell outcomes.
    """

    def __init__(self, transport: Transport, limiter: RateLimiter, hook: Hook, trust: EventTrust) -> None:
        self.schedule: PollSchedule = PollSchedule(limiter.limits)
        self.turns: PollTurns = PollTurns(limiter)
        self.hook = hook
        self.trust = trust
        self.audits: Audits = Audits(limiter)
        self._transport = transport
        self._limiter = limiter

    def begin_anew(self) -> None:
        """Nobody polls any more who did before."""
        self.turns = PollTurns(self._limiter)
        self.audits.abandon()

    async def look(self, job_id: str, merchant_id: str) -> IssuanceJob:
        """Fetch a snapshot of a job. Like every request that only reads, it waits behind issuing."""
        request = wire.get_issuance_job(job_id, merchant_id)
        return await self._transport.call(request, wire.decoder_of_job(job_id), lane=Lane.POLL)

    async def revoke(self, job_id: str, merchant_id: str, lane: Lane) -> IssuanceJob:
        """Request the revocation of a job's rewards."""
        request = wire.revoke_issuance_job(job_id, merchant_id)
        return await self._transport.call(request, wire.decoder_of_job(job_id), lane=lane)


class WebhookSigns:
    """What webhooks have told about a job: whether it is over, and one bit for each guest with a reward.

    ``claims`` is what they told of its outcome, for a client that may believe it: the first event, and one
    that tells something else.
    """

    __slots__ = ("_bits", "claims", "count", "over")

    def __init__(self) -> None:
        self.over: bool = False
        self.count: int = 0
        self.claims: tuple[Claim, ...] = ()
        self._bits = bytearray()

    def add(self, index: int | None) -> None:
        """Count the guest at this index in the job; repeated events count once."""
        if index is None or not 0 <= index < MAX_BATCH:
            return
        byte, bit = index // 8, 1 << index % 8
        if byte >= len(self._bits):
            self._bits.extend(bytes(byte + 1 - len(self._bits)))
        if not self._bits[byte] & bit:
            self._bits[byte] |= bit
            self.count += 1

    def hear(self, claim: Claim) -> None:
        """Take in what an event told of the outcome."""
        if claim not in self.claims and len(self.claims) < _MAX_CLAIMS:
            self.claims = (*self.claims, claim)


class JobPoller:
    """Polls one job. All handles of the job share its latest snapshot and its next poll."""

    def __init__(self, job_id: str, merchant_id: str, service: JobService, signs: WebhookSigns) -> None:
        self.signs = signs
        self.job_id = job_id
        self.merchant_id = merchant_id
        self.job: IssuanceJob | None = None
        self.version: int = 0
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
        self._when_finished: list[tuple[Callable[[], object], Callable[[], object]]] = []
        self._sent: Sent | None = None
        self._weighed = 0
        self._told: IssuanceJob | None = None
        self._polled: IssuanceJob | None = None
        self._is_told = self._is_judged = False

    def update(self, job: IssuanceJob, *, accepted: bool = False) -> None:
        """Take in a snapshot.

        Args:
            job: the snapshot.
            accepted: it is from the answer that accepted the job.
        """
        if accepted and self.job and self.job.is_finished and not job.is_finished:
            return  # Thanx has repeated its first answer, which is out of date
        now = asyncio.get_running_loop().time()
        if self._course is None:
            self._course = self._schedule.follow(job, now, accepted=accepted)
            if self.signs.over:
                self._schedule.hint(self._course, asyncio.get_running_loop().time())
        else:
            self._schedule.observe(self._course, job, now)
        ended = job.is_finished and not (self.job and self.job.is_finished)
        ended = ended and (self._polls > 0 or (job.by_event and not accepted))
        self.job = job
        self.version += 1
        self._change.set()
        self._call_if_finished()
        if ended:
            self._emit_end(job, now - self._course.since)

    def when_finished(self, mark: Callable[[], object], act: Callable[[], object]) -> None:
        """Call ``mark`` once the job has finished, and ``act`` soon after that; now if it has.

        What takes long belongs into ``act``: thousands of failures have just blocked the loop for decoding.
        """
        self._when_finished.append((mark, act))
        self._call_if_finished()

    def _call_if_finished(self) -> None:
        if self.job and self.job.is_finished:
            callbacks, self._when_finished = self._when_finished, []
            for mark, act in callbacks:
                mark()
                asyncio.get_running_loop().call_soon(act)

    def _emit_end(self, job: IssuanceJob, seconds: float) -> None:
        record = JobRecord(
            job.id, job.state, job.total_count, job.success_count, job.failure_count, seconds, self._polls
        )
        emit(self._service.hook, record)

    def hint(self) -> None:
        """Poll the job as soon as a caller waits for it: a webhook told that it is over."""
        if self.job and self.job.is_finished:
            return
        self._hinted = True
        if self._course:
            self._schedule.hint(self._course, asyncio.get_running_loop().time())
        self._change.set()

    def time_left(self) -> float | None:
        """Seconds until the job should finish; None until the speed of jobs is known."""
        expected = None if self._course is None else self._schedule.expected(self._course)
        return None if expected is None else max(0.0, expected - asyncio.get_running_loop().time())

    def usual_time(self, total: int) -> float | None:
        """Seconds that a job of this size should take; None until the speed of jobs is known."""
        return self._schedule.usual(total)

    def expect(self, sent: Sent) -> None:
        """Keep what was sent in the job, so that an event can tell its outcome."""
        self._sent = sent
        if sent.job.by_event:
            self._told = sent.job
            self._service.trust.settled(self)
        self.weigh()

    def weigh(self) -> None:
        """Compare what events have told with what was sent."""
        trust, sent = self._service.trust, self._sent
        if sent is None:
            return
        for claim in self.signs.claims[self._weighed :]:
            self._weighed += 1
            told = weighed(claim, sent)
            if self._contradicts(claim, told, sent):
                trust.disagree(self.job_id, "two events tell different outcomes")
            elif isinstance(told, str):
                _log.debug("the event of job %s does not tell its outcome: %s", self.job_id, told)
            else:
                self._told, self._is_told = told, True
                if not self._judge(trust, self._polled) and not (self.job and self.job.is_finished):
                    trust.claim(self)

    def _contradicts(self, claim: Claim, told: IssuanceJob | str, sent: Sent) -> bool:
        """Whether an earlier event, here or as recorded, told another outcome."""
        if self._told is not None and not isinstance(told, str):
            return bool(difference(self._told, told))
        return self._is_told and mismatch(claim, sent) is None

    def _forget_guests(self) -> None:
        if self._sent is not None:
            self._sent = attrs.evolve(self._sent, guests=None)

    def _judge(self, trust: EventTrust, job: IssuanceJob | None) -> bool:
        """Compare what the event told with the job as polled. Returns whether both are known."""
        if job is None or not job.is_finished or self._told is None:
            return False
        told, self._told = self._told, None
        what = None if job.state == "revoked" else difference(told, job)
        if what:
            trust.disagree(self.job_id, what)
        elif what is not None and not self._is_judged:
            trust.confirm(failures=told.failure_count > 0)
        self._is_judged = True
        self._forget_guests()
        return True

    def believe(self) -> None:
        """Take the outcome that an event told."""
        trust, told = self._service.trust, self._told
        if told is None or (self.job and self.job.is_finished):
            return
        trust.settled(self)
        self._forget_guests()
        self.update(told)
        if trust.is_sampled(self.job_id):
            self._service.audits.owe(self)

    def retract(self) -> None:
        """Poll again what an event told."""
        if self.job and self.job.by_event:
            accepted = self._sent.job if self._sent and not self._sent.job.by_event else None
            self.job = self._polled or accepted
            self.version += 1
            self.hint()

    async def audit(self) -> None:
        """Poll the job all the same."""
        await self.refresh()

    async def refresh(self) -> IssuanceJob:
        """Poll the job now."""
        self._polls += 1
        job = await self._service.look(self.job_id, self.merchant_id)
        self._polled = job
        self.update(job)
        self._judge(self._service.trust, job)
        return job

    async def revoke(self, lane: Lane) -> IssuanceJob:
        """Revoke the job's rewards, and take in the snapshot of Thanx's answer."""
        job = await self._service.revoke(self.job_id, self.merchant_id, lane)
        self.update(job)
        return job

    async def newer(self, version: int) -> None:
        """Wait for a snapshot newer than ``version``. One waiter polls on behalf of all.

        Raises:
            ThanxError: Thanx refused the poll. Every caller who waited gets a copy; the next polls anew.
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
        """Wait until the job is due, wait for a turn, and poll, unless a newer snapshot has arrived."""
        with self._schedule.watching(self._course, self._change.set):
            while self.version == version:
                await self._until_due(version)
                if self.version == version:
                    async with self._turns.turn(self._change, lambda: self.version == version):
                        if self.version == version and self._wait() <= RESOLUTION:
                            await self._look()

    async def _look(self) -> None:
        """Poll once. A poll without a usable answer is repeated, with growing waits."""
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

"""The poll schedule: decides when each job of a client is polled next. Pure: no clock, no I/O.

Polls share the rate limits with issuing, so a job is polled when it is likely to be finished. Until the speed
of jobs is known, a single job is polled on behalf of all: the scout. Once it is known, the scout is looked at
whenever its run time has tripled, and the next job in line at half of the wait, in case that jobs are faster
than predicted; all others only when they should be finished. A late job is polled again after a tenth of its
time so far. The gap grows to 60 s, and further if many jobs are waiting.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice

from thanx_async.jobs._speeds import JobCourse, JobSpeeds
from thanx_async.limiter import RateLimit
from thanx_async.models import IssuanceJob

_MIN_GAP = 0.5
_MAX_GAP = 60.0
_BUDGET_SHARE = 0.25
_SAFETY = 0.03
_GROWTH = 0.1
_TRUSTED = 3
_MOST_TRUSTED = 96
_GRACE = 2.5
_SCOUTS = 2
_RETURN = 1.0
_DOUBT = 2.0


class PollSchedule:
    """The schedule for all jobs of one client. Times are seconds on the loop's clock.

    Args:
        limits: the rate limits, which polls share with issuing. In the long run, repeated polls of late jobs
            take at most a quarter of them.
    """

    def __init__(self, limits: Sequence[RateLimit]) -> None:
        self._rate = _BUDGET_SHARE * min(limit.requests / limit.seconds for limit in limits)
        self._watched: dict[JobCourse, Callable[[], None]] = {}
        self._line: OrderedDict[JobCourse, None] = OrderedDict()
        self._away: list[JobCourse] = []
        self._crowd = 0
        self._speeds = JobSpeeds(self._wake)
        self._next_scout = -math.inf
        self._next_check = -math.inf
        self._webhooks_in_a_row = 0
        self._trusted_from = _TRUSTED

    def follow(self, job: IssuanceJob, now: float, *, accepted: bool) -> JobCourse:
        """Start to follow a job.

        Args:
            job: the first snapshot.
            now: the time of the snapshot.
            accepted: the snapshot is from the answer that accepted the job.
        """
        return self._speeds.follow(job, now, accepted=accepted)

    @contextmanager
    def watching(self, course: JobCourse | None, wake: Callable[[], None]) -> Iterator[None]:
        """Schedule the job within the block, while a caller waits for it.

        Args:
            course: the job; None before its first snapshot.
            wake: called when the job may be due earlier than before.
        """
        if course is None:
            yield
            return
        self._watched[course] = wake
        self._line.setdefault(course)
        if course in self._away:
            self._away.remove(course)
        self._crowd = max(self._crowd, len(self._watched))
        try:
            yield
        finally:
            self._leave(course)

    def _leave(self, course: JobCourse) -> None:
        """Let a watcher go. A scout keeps its place in line: its watcher may come back after each look."""
        was_scout = course in self._scouts()
        del self._watched[course]
        if was_scout:
            self._away.append(course)
            if len(self._away) > _SCOUTS:
                self._line.pop(self._away.pop(0), None)
            self._wake_scouts()
        else:
            self._line.pop(course, None)
        if 2 * len(self._watched) <= self._crowd:
            self._crowd = len(self._watched)
            self._wake()

    def due(self, course: JobCourse) -> float:
        """The time of the job's next poll; infinity until another job has told more."""
        expected = self._speeds.expected(course)
        if course.revoking or self._is_late(course, expected):
            return course.polled_at + self._late_gap(course)
        if expected is None:
            return self._due_for_scout(course)
        start = course.baseline[0] if course.started else self._speeds.start(course)
        gap = expected - course.polled_at + _SAFETY * (expected - start)
        gap = gap + _GRACE if self._awaits_webhook(course) else self._checked(course, gap)
        gap = max(_MIN_GAP, gap, self._late_gap(course) if course.idle_polls else 0.0)
        return course.polled_at + gap

    def _awaits_webhook(self, course: JobCourse) -> bool:
        """Whether a webhook will probably tell when the job ends."""
        return self._webhooks_in_a_row >= self._trusted_from and course.hinted_at is None

    def _late_gap(self, course: JobCourse) -> float:
        """The gap after which a late job is polled again; many late jobs share a part of the limits."""
        fair_gap = len(self._watched) / self._rate
        since = course.since if course.hinted_at is None else course.hinted_at
        least = _GRACE if self._awaits_webhook(course) else _MIN_GAP
        gap = max(least, _GROWTH * (course.polled_at - since))
        return min(max(_MAX_GAP, fair_gap), max(gap, fair_gap if course.idle_polls > 1 else 0.0))

    def _checked(self, course: JobCourse, gap: float) -> float:
        """The gap before a job that should be finished after ``gap``; shorter for the scouts."""
        first, second = (*self._scouts(), None, None)[:2]
        early = gap
        if course is first and self._speeds.is_scout(course):
            early = _DOUBT * (course.polled_at - course.baseline[0])
        elif course in {first, second} and gap > 2 * _MAX_GAP:
            early = max(_MAX_GAP, gap / 2)
        return min(gap, max(early, max(self._next_check, self._scout_back()) - course.polled_at))

    def _is_late(self, course: JobCourse, expected: float | None) -> bool:
        """Whether the job has stalled, or should be finished and is not, by a webhook or by its speed."""
        if course.hinted_at is not None and (
            expected is None or expected - course.polled_at <= _GROWTH * (course.polled_at - course.since)
        ):
            return True
        if expected is None or course.polled_at == course.since:
            return False
        return expected <= course.polled_at or (course.idle_polls > 0 and course.progress > 0)

    def _due_for_scout(self, course: JobCourse) -> float:
        """When the scout is polled next, after growing gaps. For any other job, infinity."""
        if next(self._scouts(), None) is not course:
            return math.inf
        if course.progress > 0:
            return course.polled_at + max(_MIN_GAP, min(_MAX_GAP, course.polled_at - course.baseline[0]))
        first_look = course.polled_at + min(_MAX_GAP, 1.0 + course.total / 10_000)
        return max(self._next_scout, self._scout_back(), first_look)

    def _scout_back(self) -> float:
        """Until when a scout that was looked at may come back before another takes its place."""
        return max((course.polled_at + _RETURN for course in self._away), default=-math.inf)

    def _scouts(self) -> Iterator[JobCourse]:
        """The first jobs in line that are watched."""
        return islice((course for course in self._line if course in self._watched), _SCOUTS)

    def expected(self, course: JobCourse) -> float | None:
        """When the job should finish; None until the speed is known."""
        return self._speeds.expected(course)

    def usual(self, total: int) -> float | None:
        """Seconds from the acceptance of a job of this size to its end; None until the speed is known."""
        return self._speeds.usual(total)

    def observe(self, course: JobCourse, job: IssuanceJob, now: float) -> None:
        """Learn from a snapshot of the job."""
        if job.state in {"revoking", "revoked"}:
            if not course.revoking:
                course.revoking, course.since, course.idle_polls = True, now, 0
            course.polled_at = now
            course.idle_polls += 1
            return
        self._speeds.observe(course, job, now)
        if job.is_finished:
            self._line.pop(course, None)
            self._wake_scouts()
            if course.hinted_at is None:
                self._unheard(course)
        elif course.progress <= 0 or course.idle_polls:
            if course.progress <= 0:
                self._next_scout = now + min(_MAX_GAP, now - course.since)
            if course in self._line:
                self._next_check = now + (now - course.since)
                self._line.move_to_end(course)
                self._wake_scouts()

    def heard(self) -> None:
        """Take in that a webhook arrived for one of these jobs. After several in a row polls are only a
        fallback, until a job ends without one."""
        self._webhooks_in_a_row += 1
        if self._webhooks_in_a_row == self._trusted_from:
            self._wake()

    def _unheard(self, course: JobCourse) -> None:
        """Take in that the job ended without a webhook. Each time that trust is lost, more must earn it."""
        trusted, self._webhooks_in_a_row = self._awaits_webhook(course), 0
        if trusted:
            self._trusted_from = min(_MOST_TRUSTED, 2 * self._trusted_from)
            self._wake()

    def hint(self, course: JobCourse, now: float) -> None:
        """Take in a webhook for the end of the job. The job is polled soon, and repeatedly if necessary."""
        course.hinted_at = now if course.hinted_at is None else course.hinted_at

    def _wake_scouts(self) -> None:
        for course in self._scouts():
            self._watched[course]()

    def _wake(self) -> None:
        for wake in self._watched.values():
            wake()

"""The poll schedule: decides when each job of a client is polled next. Pure: no clock, no I/O.

Polls share the rate limits with issuing, so a job is polled when it is likely to be finished. Until the speed
of jobs is known, a single job is polled on behalf of all: the scout. A late job is polled again after a tenth
of its time so far. The gap grows to 60 s, and further if many jobs are waiting.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from thanx_async.jobs._speeds import JobCourse, JobSpeeds
from thanx_async.limiter import RateLimit
from thanx_async.models import IssuanceJob

_MIN_GAP = 0.5
_MAX_GAP = 60.0
_BUDGET_SHARE = 0.25
_SAFETY = 0.03
_GROWTH = 0.1
_TRUSTED = 3
_OVERDUE = 5.0


class PollSchedule:
    """The schedule for all jobs of one client. Times are seconds on the loop's clock.

    Args:
        limits: the rate limits, which polls share with issuing. In the long run, repeated polls of late jobs
            take at most a quarter of them.
    """

    def __init__(self, limits: Sequence[RateLimit]) -> None:
        self._rate = _BUDGET_SHARE * min(limit.requests / limit.seconds for limit in limits)
        self._watched: dict[JobCourse, Callable[[], None]] = {}
        self._scout_line: OrderedDict[JobCourse, None] = OrderedDict()
        self._speeds = JobSpeeds(self._wake)
        self._next_scout = -math.inf
        self._webhooks_in_a_row = 0

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
        self._scout_line[course] = None
        try:
            yield
        finally:
            del self._watched[course]
            self._leave_scout_line(course)

    def due(self, course: JobCourse) -> float:
        """The time of the job's next poll; infinity until another job has told more."""
        fair_gap = len(self._watched) / self._rate
        max_gap = max(_MAX_GAP, fair_gap)
        expected = self._speeds.expected(course)
        growing_gap = _GROWTH * (
            course.polled_at - (course.since if course.hinted_at is None else course.hinted_at)
        )
        if self._webhooks_in_a_row >= _TRUSTED and course.hinted_at is None:
            overdue = max_gap if expected is None else max(_OVERDUE, _GROWTH * (expected - course.since))
            return max(course.polled_at, expected or 0.0) + min(max_gap, overdue)
        if (
            course.revoking
            or self._is_late(course, expected)
            or (expected is None and course.hinted_at is not None)
        ):
            return course.polled_at + min(
                max_gap, max(_MIN_GAP, growing_gap, fair_gap if course.idle_polls > 1 else 0.0)
            )
        if expected is None:
            return self._due_for_scout(course, max_gap)
        self._leave_scout_line(course)
        start = course.baseline[0] if course.started else self._speeds.start(course)
        gap = expected - course.polled_at + _SAFETY * (expected - start)
        if gap > 2 * max_gap:
            gap = max(max_gap, gap / 2)
        elif self._speeds.is_scout(course) and gap > 2.0:
            gap /= 2
        return course.polled_at + max(_MIN_GAP, gap, min(max_gap, growing_gap) if course.idle_polls else 0.0)

    def _is_late(self, course: JobCourse, expected: float | None) -> bool:
        """Whether the job has stalled, or should be finished and is not."""
        if expected is None or course.polled_at == course.since:
            return False
        return expected <= course.polled_at or (course.idle_polls > 0 and course.progress > 0)

    def _due_for_scout(self, course: JobCourse, max_gap: float) -> float:
        """When the scout is polled next, after growing gaps. For any other job, infinity."""
        self._scout_line.setdefault(course)
        if next(iter(self._scout_line)) is not course:
            return math.inf
        if course.progress > 0:
            return course.polled_at + max(_MIN_GAP, min(max_gap, course.polled_at - course.baseline[0]))
        return max(self._next_scout, course.polled_at + min(max_gap, 1.0 + course.total / 10_000))

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
        if job.is_finished and course.hinted_at is None:
            trusted, self._webhooks_in_a_row = self._webhooks_in_a_row >= _TRUSTED, 0
            if trusted:
                self._wake()
        elif (
            not job.is_finished and (course.progress <= 0 or course.idle_polls) and course in self._scout_line
        ):
            if course.progress <= 0:
                self._next_scout = now + min(_MAX_GAP, now - course.since)
            self._scout_line.move_to_end(course)
            self._wake()

    def heard(self) -> None:
        """Take in that a webhook arrived for one of these jobs. After several in a row polls are only a
        fallback, until a job ends without one."""
        self._webhooks_in_a_row += 1
        if self._webhooks_in_a_row == _TRUSTED:
            self._wake()

    def hint(self, course: JobCourse, now: float) -> None:
        """Take in a webhook for the end of the job. The job is polled soon, and repeatedly if necessary."""
        course.hinted_at = now if course.hinted_at is None else course.hinted_at

    def _leave_scout_line(self, course: JobCourse) -> None:
        was_first = next(iter(self._scout_line), None) is course
        self._scout_line.pop(course, None)
        if was_first:
            self._wake()

    def _wake(self) -> None:
        for wake in self._watched.values():
            wake()

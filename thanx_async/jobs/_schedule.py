"""When to look at which job next: one pure schedule for all jobs of a client, without clock or I/O.

Polls are paid from the budget that issuing needs, so a job is looked at when it is likely to be over. As long
as nothing is known, one job at a time is looked at for all: the scout. A job that is late is looked at again
after a tenth of the time that it has taken so far, at most every 60 s where others wait as well.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from thanx_async.jobs._speeds import JobCourse, JobSpeeds
from thanx_async.limiter import RateLimit
from thanx_async.models import IssuanceJob

_SOONEST = 0.5
_SLOW = 60.0
_SHARE = 0.25
_MARGIN = 0.03
_GROWTH = 0.1
_TRUSTED = 3
_OVERDUE = 5.0


class PollSchedule:
    """The schedule of all jobs of one client.

    Args:
        limits: the rate limits, which polls share with issuing. Polls that only make sure, since a job is
            late, spend at most a quarter of what they allow in the long run.
    """

    def __init__(self, limits: Sequence[RateLimit]) -> None:
        self._rate = _SHARE * min(limit.requests / limit.seconds for limit in limits)
        self._watched: dict[JobCourse, Callable[[], None]] = {}
        self._unknown: OrderedDict[JobCourse, None] = OrderedDict()
        self._speeds = JobSpeeds(self._wake)
        self._next_scout = -math.inf
        self._heard = 0

    def track(self, job: IssuanceJob, now: float, *, accepted: bool) -> JobCourse:
        """Begin to follow a job, with the answer that accepted it or with a first look."""
        return self._speeds.track(job, now, accepted=accepted)

    @contextmanager
    def watching(self, course: JobCourse | None, wake: Callable[[], None]) -> Iterator[None]:
        """Somebody waits for the job. ``wake`` is called when it may be due sooner than it was."""
        if course is None:
            yield
            return
        self._watched[course] = wake
        self._unknown[course] = None
        try:
            yield
        finally:
            del self._watched[course]
            self._leave_line(course)

    def due(self, course: JobCourse) -> float:
        """The time of the job's next poll; infinity: not before another job has told more."""
        fair = len(self._watched) / self._rate
        slowest = max(_SLOW, fair)
        expected = self._speeds.expected(course)
        cautious = _GROWTH * (course.looked - (course.since if course.hinted is None else course.hinted))
        if self._heard >= _TRUSTED and course.hinted is None:
            overdue = slowest if expected is None else max(_OVERDUE, _GROWTH * (expected - course.since))
            return max(course.looked, expected or 0.0) + min(slowest, overdue)
        if (
            course.revoking
            or self._stalls(course, expected)
            or (expected is None and course.hinted is not None)
        ):
            return course.looked + min(slowest, max(_SOONEST, cautious, fair if course.vain > 1 else 0.0))
        if expected is None:
            return self._scouting(course, slowest)
        self._leave_line(course)
        start = course.mark[0] if course.started else self._speeds.start(course)
        gap = expected - course.looked + _MARGIN * (expected - start)
        if gap > 2 * slowest:
            gap = max(slowest, gap / 2)
        elif self._speeds.is_scout(course) and gap > 2.0:
            gap /= 2
        return course.looked + max(_SOONEST, gap, min(slowest, cautious) if course.vain else 0.0)

    def _stalls(self, course: JobCourse, expected: float | None) -> bool:
        """It has come to a standstill, or should be over and is not."""
        if expected is None or course.looked == course.since:
            return False
        return expected <= course.looked or (course.vain > 0 and course.done > 0)

    def _scouting(self, course: JobCourse, slowest: float) -> float:
        """Nothing reliable is known: the first in line looks for all, after growing waits."""
        self._unknown.setdefault(course)
        if next(iter(self._unknown)) is not course:
            return math.inf
        if course.done > 0:
            return course.looked + max(_SOONEST, min(slowest, course.looked - course.mark[0]))
        return max(self._next_scout, course.looked + min(slowest, 1.0 + course.total / 10_000))

    def seen(self, course: JobCourse, job: IssuanceJob, now: float) -> None:
        """Learn from a snapshot."""
        if job.state in {"revoking", "revoked"}:
            if not course.revoking:
                course.revoking, course.since, course.vain = True, now, 0
            course.looked = now
            course.vain += 1
            return
        self._speeds.seen(course, job, now)
        if job.is_finished and course.hinted is None:
            trusted, self._heard = self._heard >= _TRUSTED, 0
            if trusted:
                self._wake()
        elif not job.is_finished and (course.done <= 0 or course.vain) and course in self._unknown:
            if course.done <= 0:
                self._next_scout = now + min(_SLOW, now - course.since)
            self._unknown.move_to_end(course)
            self._wake()

    def heard(self) -> None:
        """A webhook told of one of these jobs. Once several have in a row, polls only make sure; a job that
        ends without one ends that."""
        self._heard += 1
        if self._heard == _TRUSTED:
            self._wake()

    def hint(self, course: JobCourse, now: float) -> None:
        """A webhook tells that the job is over, so it is looked at soon, again and again if need be."""
        course.hinted = now if course.hinted is None else course.hinted

    def _leave_line(self, course: JobCourse) -> None:
        was_first = next(iter(self._unknown), None) is course
        self._unknown.pop(course, None)
        if was_first:
            self._wake()

    def _wake(self) -> None:
        for wake in self._watched.values():
            wake()

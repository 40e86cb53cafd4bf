"""Predicts when a job will finish, from the measured speeds of jobs. Pure: no clock, no I/O.

Jobs start in the order of their acceptance: if one has not started yet, later ones have not either.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Callable
from statistics import fmean, median

import attrs

from thanx_async.models import IssuanceJob

REACH = 10.0
"""A prediction may reach this many times as far as the run time that it was learned from."""
_REMEMBERED = 16
_MOST_SPREAD = 4
_DATES = 1.0
_MIN_LATENESS = 2.0
_MAX_LATENESS = 86_400.0
_QUEUE_SHARE = 0.05
_STALL_FACTOR = 3
_MIN_PROGRESS_POLLS = 2
_MAX_QUEUE_DELAY = 1.0


@attrs.define(eq=False)
class JobCourse:
    """The known course of one job. Times are seconds on the loop's clock.

    Attributes:
        since: when the job was accepted, or first polled, or found revoking.
        polled_at: the time of the latest snapshot.
        total: identifiers in the job.
        processed: identifiers processed at ``polled_at``.
        baseline: the time, and the count of processed identifiers, from which the speed is measured.
        accepted: the course began with the answer that accepted the job.
        started: the job is known to have started.
        progress_polls: the number of polls that found progress.
        idle_polls: the number of polls in a row without the expected progress.
        hinted_at: when a webhook told that the job is finished.
        revoking: the job is being revoked.
    """

    since: float
    polled_at: float
    total: int
    processed: int
    baseline: tuple[float, int]
    accepted: bool
    started: bool = False
    progress_polls: int = 0
    idle_polls: int = 0
    hinted_at: float | None = None
    revoking: bool = False

    @property
    def progress(self) -> int:
        """Identifiers processed since the baseline."""
        return self.processed - self.baseline[1]


@attrs.define
class _Pace:
    """A measured speed.

    Attributes:
        value: seconds for each identifier.
        evidence: seconds of run time that the value was learned from; infinity for a finished job.
        source: the job that the value was learned from.
        announced: the slowest value since waiting jobs were last rescheduled.
        recent: the values of recent jobs, once one of them has finished.
    """

    value: float
    evidence: float
    source: JobCourse
    announced: float
    recent: OrderedDict[JobCourse, float] = attrs.field(factory=OrderedDict)

    def take(self, course: JobCourse, value: float) -> None:
        """Take in a job's speed. The value is that of the slowest recent job, so that most are polled once.

        Jobs far slower than most are left out, and so is a difference that dates in whole seconds explain.
        """
        self.recent[course] = value
        self.recent.move_to_end(course)
        if len(self.recent) > _REMEMBERED:
            self.recent.popitem(last=False)
        most = _MOST_SPREAD * median(self.recent.values())
        usual = [min(value, most) for value in self.recent.values()]
        self.value = max(fmean(usual), max(usual) - _DATES / course.total)

    def forget(self, course: JobCourse) -> None:
        """Leave out a job that has stalled."""
        if len(self.recent) > 1:
            self.recent.pop(course, None)


class JobSpeeds:
    """The speeds learned from all jobs of one client.

    Args:
        on_faster: called when jobs may finish sooner than expected.
    """

    def __init__(self, on_faster: Callable[[], None]) -> None:
        self._on_faster = on_faster
        self._paces: dict[int, _Pace] = {}
        self._start_delays: deque[float] = deque(maxlen=8)
        self._clock_offset = math.inf
        self._latest_start = (-math.inf, -math.inf)
        self._starts: deque[tuple[float, float]] = deque(maxlen=8)

    def follow(self, job: IssuanceJob, now: float, *, accepted: bool) -> JobCourse:
        """Start to follow a job, from the answer that accepted it or from a first poll."""
        since = self._accepted_at(job, now) if accepted else now
        count = job.processed_count
        return JobCourse(since, now, job.total_count, count, (since, count), accepted)

    def expected(self, course: JobCourse) -> float | None:
        """When the job should finish; None until the speed is known."""
        if course.progress > 0:
            running = course.polled_at - course.baseline[0]
            remaining = (course.total - course.processed) * running / course.progress
            if remaining <= (REACH - 1) * running:
                return course.polled_at + remaining
        pace = self._pace(course.total)
        if pace is None:
            return None
        if course.started or not course.accepted:
            return course.baseline[0] + (course.total - course.baseline[1]) * pace
        return self.start(course) + course.total * pace

    def usual(self, total: int) -> float | None:
        """Seconds from the acceptance of a job of this size to its end; None until the speed is known."""
        pace = self._pace(total)
        return None if pace is None else min(self._start_delays, default=0.0) + total * pace

    def start(self, course: JobCourse) -> float:
        """When an accepted job should start if no poll has found it running."""
        start = max(course.since + min(self._start_delays, default=0.0), self._backlog_start(course))
        if course.idle_polls:
            start = max(start, course.polled_at)
        ahead_accepted, started_at = self._latest_start
        accepted_later = course.since - ahead_accepted
        return (
            max(start, started_at + min(_MAX_QUEUE_DELAY, _QUEUE_SHARE * accepted_later))
            if accepted_later > 0
            else start
        )

    def _backlog_start(self, course: JobCourse) -> float:
        """When the job should start if Thanx runs jobs one after another, as the latest starts may show.

        It was accepted before the latest start, so it has been waiting behind that job. Far ahead nothing is
        predicted beyond the time that the known starts took.
        """
        if len(self._starts) <= 1:
            return -math.inf
        (first_accepted, first), (accepted, latest) = min(self._starts), max(self._starts)
        took = latest - first - 2 * _DATES
        if not accepted < course.since < latest or took <= accepted - first_accepted:
            return -math.inf
        ahead = (course.since - accepted) * took / (accepted - first_accepted)
        return latest + min(ahead, took) + _DATES

    def is_scout(self, course: JobCourse) -> bool:
        """Whether other jobs are predicted from this job's progress, because none has finished yet."""
        pace = self._paces.get(course.total.bit_length())
        return course.progress > 0 and pace is not None and pace.evidence < math.inf

    def _pace(self, total: int) -> float | None:
        """Seconds for each identifier of a job, learned from jobs of about the same size or larger."""
        size = total.bit_length()
        sizes = [known for known in self._paces if known >= size - 1]
        if not sizes or not total:
            return None
        pace = self._paces[min(sizes, key=lambda known: (abs(known - size), -known))]
        return pace.value if total * pace.value <= REACH * pace.evidence else None

    def observe(self, course: JobCourse, job: IssuanceJob, now: float) -> None:
        """Learn from a snapshot of the job."""
        if job.processed_count > course.processed:
            if course.idle_polls and course.started:
                course.baseline = course.polled_at, course.processed  # measure anew after a stall
            course.idle_polls = 0
            course.progress_polls += 1
        elif not course.progress or course.progress * (now - course.polled_at) > _STALL_FACTOR * (
            course.polled_at - course.baseline[0]
        ):
            course.idle_polls += 1
            if pace := self._paces.get(course.total.bit_length()):
                pace.forget(course)
        previous_poll, course.polled_at = course.polled_at, now
        course.processed, course.total = job.processed_count, job.total_count or course.total
        self._observe_start(course, job, now)
        if job.state == "completed":
            self._learn(course, self._run_time(course, job, previous_poll) / max(1, course.total), math.inf)
        elif course.progress > 0 and not course.idle_polls and not job.is_finished:
            self._learn(course, (now - course.baseline[0]) / course.progress, now - course.baseline[0])

    def _observe_start(self, course: JobCourse, job: IssuanceJob, now: float) -> None:
        if course.started:
            return
        course.started = bool(job.started_at or job.processed_count or job.state == "processing")
        start = now
        if course.started:
            wait = (
                (job.started_at - job.created_at).total_seconds() if job.started_at and job.created_at else 0
            )
            start = min(now, course.since + max(0.0, wait))
            if course.accepted:
                course.baseline = start, 0
                self._start_delays.append(start - course.since)
                if job.started_at and job.created_at:
                    self._starts.append((course.since, start))
        if course.accepted and start > self._latest_start[1]:
            self._latest_start = course.since, start

    def _run_time(self, course: JobCourse, job: IssuanceJob, previous_poll: float) -> float:
        """Seconds for which a completed job ran: by Thanx's dates, within the bounds set by the polls.

        Without dates it is the expected time, within the same bounds: a late poll must not delay later polls.
        """
        longest = course.polled_at - course.baseline[0]
        shortest = (
            max(0.0, previous_poll - course.baseline[0])
            if course.started and previous_poll > course.baseline[0]
            else 0.0
        )
        if job.completed_at and (begun := job.started_at or job.created_at):
            took = (job.completed_at - begun).total_seconds()
            return took if not course.accepted else min(longest, max(shortest, took))
        pace = self._pace(course.total)
        return longest if pace is None else min(longest, max(shortest, pace * course.total))

    def _learn(self, course: JobCourse, value: float, evidence: float) -> None:
        size = course.total.bit_length()
        known = self._paces.get(size)
        if not size or value <= 0:
            return
        if known is None or known.evidence < math.inf:
            if known is None or self._is_better(known, course, value, evidence):
                self._paces[size] = pace = _Pace(value, evidence, course, value)
                if evidence == math.inf:
                    pace.take(course, value)
                self._on_faster()
        elif evidence == math.inf or course.total <= REACH * course.progress:
            known.take(course, value)
            known.announced = max(known.announced, known.value)
            if known.value < 0.9 * known.announced:
                known.announced = known.value
                self._on_faster()

    @staticmethod
    def _is_better(known: _Pace, course: JobCourse, value: float, evidence: float) -> bool:
        """Whether the new speed replaces the known one.

        A job with a single progress poll may hang, so its speed replaces only a slower one.
        """
        return evidence == math.inf or (
            evidence >= known.evidence
            and (
                known.source is course or value < known.value or course.progress_polls >= _MIN_PROGRESS_POLLS
            )
        )

    def _accepted_at(self, job: IssuanceJob, now: float) -> float:
        """The loop's time at which Thanx created the job: long ago if the first answer was lost."""
        if job.created_at is None:
            return now
        created = job.created_at.timestamp()
        self._clock_offset = min(self._clock_offset, now - created)
        made = created + self._clock_offset
        return made if _MIN_LATENESS < now - made < _MAX_LATENESS else now

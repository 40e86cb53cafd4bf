"""How fast jobs go, learnt from snapshots: when a job should be over. Pure, without clock or I/O.

Jobs start in the order in which they were accepted: one that has not started yet tells that those behind it
have not either.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable

import attrs

from thanx_async.models import IssuanceJob

REACH = 10.0
"""A prediction is relied on up to this many times as long as what it was learnt from."""
_MEMORY = 0.3
_LATE = 2.0
_TOO_LATE = 86_400.0
_ORDER = 0.05
_SILENCE = 3
_CERTAIN = 2
_SOON = 1.0


@attrs.define(eq=False)
class JobCourse:
    """What is known of one job's course. Times are seconds on the loop's clock.

    ``mark`` is the moment, and the count of identifiers, from which its speed is measured; ``steps`` counts
    the looks that found it to have gone on; ``hinted`` is when a webhook told that it is over.
    """

    since: float
    looked: float
    total: int
    processed: int
    mark: tuple[float, int]
    accepted: bool
    started: bool = False
    steps: int = 0
    vain: int = 0
    hinted: float | None = None
    revoking: bool = False

    @property
    def done(self) -> int:
        return self.processed - self.mark[1]


@attrs.define
class _Pace:
    """Seconds for each identifier, how many seconds of which job's run this was learnt from (infinity: of a
    finished one), and the slowest that it was since it was last announced."""

    value: float
    evidence: float
    source: JobCourse
    announced: float


class JobSpeeds:
    """What was learnt from all jobs of one client.

    Args:
        changed: called when jobs may be over sooner than was expected.
    """

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._paces: dict[int, _Pace] = {}
        self._waits: deque[float] = deque(maxlen=8)
        self._offset = math.inf
        self._started = (-math.inf, -math.inf)

    def track(self, job: IssuanceJob, now: float, *, accepted: bool) -> JobCourse:
        """Begin to follow a job, with the answer that accepted it or with a first look."""
        since = self._accepted_at(job, now) if accepted else now
        count = job.processed_count
        return JobCourse(since, now, job.total_count, count, (since, count), accepted)

    def expected(self, course: JobCourse) -> float | None:
        """When the job should be over, None as long as nothing reliable is known."""
        if course.done > 0:
            running = course.looked - course.mark[0]
            left = (course.total - course.processed) * running / course.done
            if left <= (REACH - 1) * running:
                return course.looked + left
        pace = self._pace(course.total)
        if pace is None:
            return None
        if course.started or not course.accepted:
            return course.mark[0] + (course.total - course.mark[1]) * pace
        return self.start(course) + course.total * pace

    def start(self, course: JobCourse) -> float:
        """When an accepted job that was not seen running starts."""
        start = course.since + min(self._waits, default=0.0)
        if course.vain:
            start = max(start, course.looked)
        ahead, at = self._started
        behind = course.since - ahead
        return max(start, at + min(_SOON, _ORDER * behind)) if behind > 0 else start

    def is_scout(self, course: JobCourse) -> bool:
        """Others are predicted from this job's progress, and none has finished yet."""
        pace = self._paces.get(course.total.bit_length())
        return pace is not None and pace.source is course and pace.evidence < math.inf

    def _pace(self, total: int) -> float | None:
        """Seconds for each identifier of a job of this size, from jobs of about the size or larger ones."""
        size = total.bit_length()
        sizes = [known for known in self._paces if known >= size - 1]
        if not sizes or not total:
            return None
        pace = self._paces[min(sizes, key=lambda known: (abs(known - size), -known))]
        return pace.value if total * pace.value <= REACH * pace.evidence else None

    def seen(self, course: JobCourse, job: IssuanceJob, now: float) -> None:
        """Learn from a snapshot."""
        if job.processed_count > course.processed:
            if course.vain and course.started:
                course.mark = course.looked, course.processed  # after a stall, speed is measured anew
            course.vain = 0
            course.steps += 1
        elif not course.done or course.done * (now - course.looked) > _SILENCE * (
            course.looked - course.mark[0]
        ):
            course.vain += 1
        before, course.looked = course.looked, now
        course.processed, course.total = job.processed_count, job.total_count or course.total
        self._see_start(course, job, now)
        if job.state == "completed":
            self._learn(course, self._run_time(course, job, before) / max(1, course.total), math.inf)
        elif course.done > 0 and not course.vain and not job.is_finished:
            self._learn(course, (now - course.mark[0]) / course.done, now - course.mark[0])

    def _see_start(self, course: JobCourse, job: IssuanceJob, now: float) -> None:
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
                course.mark = start, 0
                self._waits.append(start - course.since)
        if course.accepted and start > self._started[1]:
            self._started = course.since, start

    def _run_time(self, course: JobCourse, job: IssuanceJob, before: float) -> float:
        """How long a completed job ran: as Thanx says, if that fits to when it was looked at. Without dates
        as long as was expected, if that fits: a look that comes late must not make the next ones later."""
        longest = course.looked - course.mark[0]
        shortest = max(0.0, before - course.mark[0]) if course.started and before > course.mark[0] else 0.0
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
            if known is None or self._tells_more(known, course, value, evidence):
                self._paces[size] = _Pace(value, evidence, course, value)
                self._changed()
        elif evidence == math.inf:
            known.value += _MEMORY * (value - known.value)
            known.announced = max(known.announced, known.value)
            if known.value < 0.9 * known.announced:
                known.announced = known.value
                self._changed()

    @staticmethod
    def _tells_more(known: _Pace, course: JobCourse, value: float, evidence: float) -> bool:
        """A job that was seen to go on only once makes others no slower: it may be one that hangs."""
        return evidence == math.inf or (
            evidence >= known.evidence
            and (known.source is course or value < known.value or course.steps >= _CERTAIN)
        )

    def _accepted_at(self, job: IssuanceJob, now: float) -> float:
        """The loop's time at which the job was made: long ago, if its answer was lost at first."""
        if job.created_at is None:
            return now
        created = job.created_at.timestamp()
        self._offset = min(self._offset, now - created)
        made = created + self._offset
        return made if _LATE < now - made < _TOO_LATE else now

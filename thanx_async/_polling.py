"""When to look at which job next: a pure schedule over what has been seen so far.

Polls are paid from the budget that issuing needs, so a job is looked at when it is likely to be over:
predicted from its own progress, or from the speed of other jobs of the same client.
"""

from __future__ import annotations

import attrs

from thanx_async.models import IssuanceJob

_SOONEST = 0.5
_SLOW = 60.0
_SHARE = 0.1
_MARGIN = 0.03
_GROWTH = 0.15
_MEMORY = 0.3


@attrs.define
class Track:
    """What is known of one job's course. Times are seconds on the loop's clock."""

    since: float
    total: int
    looked: float
    polls: int = 0
    processed: int = 0
    overdue: int = 0


class PollSchedule:
    """The schedule of all jobs of one client.

    Args:
        budget: requests a second that the rate limits allow in the long run. Jobs that are looked at only
            to make sure share a tenth of it.
    """

    def __init__(self, budget: float) -> None:
        self._rate = budget * _SHARE
        self._pace: float | None = None
        self.watched = 0

    def due(self, track: Track) -> float:
        """The time of the next poll."""
        elapsed = track.looked - track.since
        slowest = max(_SLOW, self.watched / self._rate)
        soonest = min(slowest, max(_SOONEST, _MARGIN * elapsed) * 2.0 ** min(track.overdue, 30))
        expected = self._expected(track)
        if expected is None or expected <= track.looked:
            first_guess = 1.0 + track.total / 10_000 if track.polls == 0 else 0.0
            gap = min(slowest, first_guess + _GROWTH * elapsed)
        elif expected - track.looked > 2 * _SLOW:
            gap = (expected - track.looked) / 2
        else:
            gap = expected - track.looked + _MARGIN * (expected - track.since)
        return track.looked + max(gap, soonest)

    def seen(self, track: Track, job: IssuanceJob, now: float) -> None:
        """Learn from a snapshot."""
        expected = self._expected(track)
        if not job.is_finished and expected is not None and expected <= now:
            track.overdue += 1
        elif job.processed_count > track.processed:
            track.overdue = 0
        track.processed = job.processed_count
        track.total = job.total_count or track.total
        track.looked = now
        track.polls += 1
        self._learn(job, now - track.since)

    def _learn(self, job: IssuanceJob, elapsed: float) -> None:
        count = job.processed_count
        if job.completed_at and job.created_at:
            elapsed = (job.completed_at - job.created_at).total_seconds()
        if count <= 0 or elapsed <= 0:
            return
        pace = elapsed / count
        self._pace = pace if self._pace is None else self._pace + _MEMORY * (pace - self._pace)

    def _expected(self, track: Track) -> float | None:
        """When the job should be over."""
        elapsed = track.looked - track.since
        if track.processed and elapsed > 0:
            return track.since + elapsed * max(track.total, track.processed) / track.processed
        return None if self._pace is None else track.since + self._pace * track.total

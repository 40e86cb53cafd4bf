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

from thanx_async.jobs._speeds import Speeds, Track
from thanx_async.limiter import RateLimit
from thanx_async.models import IssuanceJob

_SOONEST = 0.5
_SLOW = 60.0
_SHARE = 0.25
_MARGIN = 0.03
_GROWTH = 0.1
_MISSED = 3


class PollSchedule:
    """The schedule of all jobs of one client.

    Args:
        limits: the rate limits, which polls share with issuing. Polls that only make sure, since a job is
            late, spend at most a quarter of what they allow in the long run.
    """

    def __init__(self, limits: Sequence[RateLimit]) -> None:
        self._rate = _SHARE * min(limit.requests / limit.seconds for limit in limits)
        self._watched: dict[Track, Callable[[], None]] = {}
        self._unknown: OrderedDict[Track, None] = OrderedDict()
        self._speeds = Speeds(self._wake)
        self._next_scout = -math.inf
        self._missed = _MISSED

    def track(self, job: IssuanceJob, now: float, *, accepted: bool) -> Track:
        """Begin to follow a job, with the answer that accepted it or with a first look."""
        return self._speeds.track(job, now, accepted=accepted)

    @contextmanager
    def watching(self, track: Track | None, wake: Callable[[], None]) -> Iterator[None]:
        """Somebody waits for the job. ``wake`` is called when it may be due sooner than it was."""
        if track is None:
            yield
            return
        self._watched[track] = wake
        self._unknown[track] = None
        try:
            yield
        finally:
            del self._watched[track]
            self._leave_line(track)

    def due(self, track: Track) -> float:
        """The time of the job's next poll; infinity: not before another job has told more."""
        fair = len(self._watched) / self._rate
        slowest = max(_SLOW, fair)
        expected = self._speeds.expected(track)
        cautious = _GROWTH * (track.looked - (track.since if track.hinted is None else track.hinted))
        if self._missed < _MISSED and track.hinted is None:
            return max(track.looked, expected or 0.0) + slowest
        if track.revoking or self._stalls(track, expected) or (expected is None and track.hinted is not None):
            return track.looked + min(slowest, max(_SOONEST, cautious, fair if track.vain > 1 else 0.0))
        if expected is None:
            return self._scouting(track, slowest)
        self._leave_line(track)
        start = track.mark[0] if track.started else self._speeds.start(track)
        gap = expected - track.looked + _MARGIN * (expected - start)
        if gap > 2 * slowest:
            gap = max(slowest, gap / 2)
        elif self._speeds.is_scout(track) and gap > 2.0:
            gap /= 2
        return track.looked + max(_SOONEST, gap, min(slowest, cautious) if track.vain else 0.0)

    def _stalls(self, track: Track, expected: float | None) -> bool:
        """It has come to a standstill, or should be over and is not."""
        if expected is None or track.looked == track.since:
            return False
        return expected <= track.looked or (track.vain > 0 and track.done > 0)

    def _scouting(self, track: Track, slowest: float) -> float:
        """Nothing reliable is known: the first in line looks for all, after growing waits."""
        self._unknown.setdefault(track)
        if next(iter(self._unknown)) is not track:
            return math.inf
        if track.done > 0:
            return track.looked + max(_SOONEST, min(slowest, track.looked - track.mark[0]))
        return max(self._next_scout, track.looked + min(slowest, 1.0 + track.total / 10_000))

    def seen(self, track: Track, job: IssuanceJob, now: float) -> None:
        """Learn from a snapshot."""
        if job.state in {"revoking", "revoked"}:
            if not track.revoking:
                track.revoking, track.since, track.vain = True, now, 0
            track.looked = now
            track.vain += 1
            return
        self._speeds.seen(track, job, now)
        if job.is_finished and track.hinted is None:
            self._missed += 1
            if self._missed == _MISSED:
                self._wake()
        elif not job.is_finished and (track.done <= 0 or track.vain) and track in self._unknown:
            if track.done <= 0:
                self._next_scout = now + min(_SLOW, now - track.since)
            self._unknown.move_to_end(track)
            self._wake()

    def heard(self) -> None:
        """A webhook came. As long as they do, polls only make sure."""
        if self._missed >= _MISSED:
            self._wake()
        self._missed = 0

    def hint(self, track: Track, now: float) -> None:
        """A webhook tells that the job is over, so it is looked at soon, again and again if need be."""
        track.hinted = now if track.hinted is None else track.hinted

    def _leave_line(self, track: Track) -> None:
        was_first = next(iter(self._unknown), None) is track
        self._unknown.pop(track, None)
        if was_first:
            self._wake()

    def _wake(self) -> None:
        for wake in self._watched.values():
            wake()

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
class Track:
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
    source: Track
    announced: float


class Speeds:
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

    def track(self, job: IssuanceJob, now: float, *, accepted: bool) -> Track:
        """Begin to follow a job, with the answer that accepted it or with a first look."""
        since = self._accepted_at(job, now) if accepted else now
        count = job.processed_count
        return Track(since, now, job.total_count, count, (since, count), accepted)

    def expected(self, track: Track) -> float | None:
        """When the job should be over, None as long as nothing reliable is known."""
        if track.done > 0:
            running = track.looked - track.mark[0]
            left = (track.total - track.processed) * running / track.done
            if left <= (REACH - 1) * running:
                return track.looked + left
        pace = self._pace(track.total)
        if pace is None:
            return None
        if track.started or not track.accepted:
            return track.mark[0] + (track.total - track.mark[1]) * pace
        return self.start(track) + track.total * pace

    def start(self, track: Track) -> float:
        """When an accepted job that was not seen running starts."""
        start = track.since + min(self._waits, default=0.0)
        if track.vain:
            start = max(start, track.looked)
        ahead, at = self._started
        behind = track.since - ahead
        return max(start, at + min(_SOON, _ORDER * behind)) if behind > 0 else start

    def is_scout(self, track: Track) -> bool:
        """Others are predicted from this job's progress, and none has finished yet."""
        pace = self._paces.get(track.total.bit_length())
        return pace is not None and pace.source is track and pace.evidence < math.inf

    def _pace(self, total: int) -> float | None:
        """Seconds for each identifier of a job of this size, from jobs of about the size or larger ones."""
        size = total.bit_length()
        sizes = [known for known in self._paces if known >= size - 1]
        if not sizes or not total:
            return None
        pace = self._paces[min(sizes, key=lambda known: (abs(known - size), -known))]
        return pace.value if total * pace.value <= REACH * pace.evidence else None

    def seen(self, track: Track, job: IssuanceJob, now: float) -> None:
        """Learn from a snapshot."""
        if job.processed_count > track.processed:
            if track.vain and track.started:
                track.mark = track.looked, track.processed  # after a stall, speed is measured anew
            track.vain = 0
            track.steps += 1
        elif not track.done or track.done * (now - track.looked) > _SILENCE * (track.looked - track.mark[0]):
            track.vain += 1
        before, track.looked = track.looked, now
        track.processed, track.total = job.processed_count, job.total_count or track.total
        self._see_start(track, job, now)
        if job.state == "completed":
            self._learn(track, self._run_time(track, job, before) / max(1, track.total), math.inf)
        elif track.done > 0 and not track.vain and not job.is_finished:
            self._learn(track, (now - track.mark[0]) / track.done, now - track.mark[0])

    def _see_start(self, track: Track, job: IssuanceJob, now: float) -> None:
        if track.started:
            return
        track.started = bool(job.started_at or job.processed_count or job.state == "processing")
        start = now
        if track.started:
            wait = (
                (job.started_at - job.created_at).total_seconds() if job.started_at and job.created_at else 0
            )
            start = min(now, track.since + max(0.0, wait))
            if track.accepted:
                track.mark = start, 0
                self._waits.append(start - track.since)
        if track.accepted and start > self._started[1]:
            self._started = track.since, start

    def _run_time(self, track: Track, job: IssuanceJob, before: float) -> float:
        """How long a completed job ran: as Thanx says, if that fits to when it was looked at. Without dates
        as long as was expected, if that fits: a look that comes late must not make the next ones later."""
        longest = track.looked - track.mark[0]
        shortest = max(0.0, before - track.mark[0]) if track.started and before > track.mark[0] else 0.0
        if job.completed_at and (begun := job.started_at or job.created_at):
            took = (job.completed_at - begun).total_seconds()
            return took if not track.accepted else min(longest, max(shortest, took))
        pace = self._pace(track.total)
        return longest if pace is None else min(longest, max(shortest, pace * track.total))

    def _learn(self, track: Track, value: float, evidence: float) -> None:
        size = track.total.bit_length()
        known = self._paces.get(size)
        if not size or value <= 0:
            return
        if known is None or known.evidence < math.inf:
            if known is None or self._tells_more(known, track, value, evidence):
                self._paces[size] = _Pace(value, evidence, track, value)
                self._changed()
        elif evidence == math.inf:
            known.value += _MEMORY * (value - known.value)
            known.announced = max(known.announced, known.value)
            if known.value < 0.9 * known.announced:
                known.announced = known.value
                self._changed()

    @staticmethod
    def _tells_more(known: _Pace, track: Track, value: float, evidence: float) -> bool:
        """A job that was seen to go on only once makes others no slower: it may be one that hangs."""
        return evidence == math.inf or (
            evidence >= known.evidence
            and (known.source is track or value < known.value or track.steps >= _CERTAIN)
        )

    def _accepted_at(self, job: IssuanceJob, now: float) -> float:
        """The loop's time at which the job was made: long ago, if its answer was lost at first."""
        if job.created_at is None:
            return now
        created = job.created_at.timestamp()
        self._offset = min(self._offset, now - created)
        made = created + self._offset
        return made if _LATE < now - made < _TOO_LATE else now

"""The figures of a run while it goes on: how far it is, how fast, when it ends, and why it waits."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from datetime import datetime
from math import inf

import attrs

from thanx_async.batcher import IssuanceRun
from thanx_async.batching import Eta
from thanx_async.cli._words import amount, clock
from thanx_async.client import ThanxClient
from thanx_async.limiter import LimiterStatus, wall_time

_LEAST_WAIT = 5
_SPAN, _LEAST_SPAN = 30.0, 1.0
_ETA_EVERY, _MOST_SHARE = 1.0, 20
_OUTAGE = "no answer"


@attrs.frozen
class Phase:
    """One of the two ends of a run: all guests accepted, or all rewarded.

    Attributes:
        name: what is done to the guests.
        done: to how many it is done.
        due: how many there are in all; None if that is not known.
        rate: how many in a second; None at first.
        end: when all are expected to be done; None if that is not known.
    """

    name: str
    done: int
    due: int | None = None
    rate: float | None = None
    end: datetime | None = None

    @property
    def percent(self) -> int | None:
        """The part that is done, rounded down."""
        if self.due is None:
            return None
        return min(100, self.done * 100 // self.due) if self.due else 100


@attrs.frozen
class Counts:
    """What is known of the guests of a run.

    Attributes:
        read: items read from the input.
        rejected: the items among them that are not valid guests.
        duplicates: the items among them that repeat an earlier guest.
        jobs: the number of jobs.
        accepted: guests whom Thanx has accepted.
        rewarded: guests with a reward.
        failed: guests without one.
        processed: guests whose outcome is known.
    """

    read: int
    rejected: int
    duplicates: int
    jobs: int
    accepted: int
    rewarded: int
    failed: int
    processed: int

    @classmethod
    def of(cls, run: IssuanceRun) -> Counts:
        """The counts as of now; those of jobs that still run as Thanx last told them."""
        counts, handles = run.report().counts, run.handles
        running = [handle.job for handle in handles if handle.job and not handle.job.is_finished]
        issued, failed = counts["issued"], counts["failed"]
        return cls(
            read=run.total,
            rejected=counts["rejected"],
            duplicates=counts["duplicates"],
            jobs=len(handles),
            accepted=sum(handle.total for handle in handles),
            rewarded=issued + sum(job.success_count for job in running),
            failed=failed + sum(job.failure_count for job in running),
            processed=issued + failed + sum(job.processed_count for job in running),
        )


@attrs.frozen
class Figures:
    """The state of a run at a moment.

    Attributes:
        counts: what is known of its guests.
        accepted: how far the batches are.
        rewarded: how far the jobs are.
        reason: why nothing goes on, "" if something does.
        notice: the same in a sentence.
        elapsed: seconds since the beginning.
    """

    counts: Counts
    accepted: Phase
    rewarded: Phase
    reason: str = ""
    notice: str = ""
    elapsed: float = 0.0

    def __str__(self) -> str:
        counts, due = self.counts, self.accepted.due
        accepted, processed = _share(counts.accepted, due), _share(counts.processed, due)
        text = f"{counts.read:,} read, {accepted} accepted in {amount(counts.jobs, 'job')}"
        rate = f"{self.accepted.rate:,.0f} guests/s" if self.accepted.rate else ""
        return "; ".join(filter(None, (f"{text}, {processed} processed", self.notice, rate, self.ends)))

    @property
    def ends(self) -> str:
        """When the run is expected to end, "" if that is not known."""
        ends = (("accepted", self.accepted.end), ("known", self.rewarded.end))
        return ", ".join(f"{name} by {clock(end)}" for name, end in ends if end is not None)


def _share(done: int, due: int | None) -> str:
    percent = Phase("", done, due).percent
    return f"{done:,}" if percent is None else f"{done:,} ({percent} %)"


class Meter:
    """Takes the figures of a run.

    Attributes:
        client: the client whose waits are told.
        total: returns the number of items in the input of a run; None if it is not known.
        is_stopping: no end is expected any more.
    """

    def __init__(self) -> None:
        self.client: ThanxClient | None = None
        self.total: Callable[[IssuanceRun], int | None] = _unknown
        self.is_stopping = False
        self._begin: float | None = None
        self._samples = deque[tuple[float, int, int]]()
        self._eta: Eta | None = None
        self._eta_at = -inf

    def take(self, run: IssuanceRun) -> Figures:
        """The figures as of now."""
        now, counts, total = asyncio.get_running_loop().time(), Counts.of(run), self.total(run)
        self._begin = now if self._begin is None else self._begin
        status = self.client.limiter.status() if self.client else None
        due = None if total is None else max(total, counts.read) - counts.rejected - counts.duplicates
        eta = None if total is None or _is_away(status) else self._expected(run, total, now)
        accept, finish = self._rates(now, counts) or (None, None)
        accepted_at, known_at = (eta.last_accepted, eta.all_known) if eta else (None, None)
        accepted_at = None if counts.accepted == due else accepted_at
        return Figures(
            counts,
            Phase("accepted", counts.accepted, due, accept, accepted_at),
            Phase("rewarded", counts.rewarded, due and due - counts.failed, finish, known_at),
            *notice(status),
            now - self._begin,
        )

    def _rates(self, now: float, counts: Counts) -> tuple[float, float] | None:
        """Guests accepted and rewarded in a second, of late."""
        samples = self._samples
        samples.append((now, counts.accepted, counts.rewarded))
        while len(samples) > 1 and samples[0][0] < now - _SPAN:
            samples.popleft()
        then, accepted, rewarded = samples[0]
        if now - then < _LEAST_SPAN:
            return None
        return (counts.accepted - accepted) / (now - then), (counts.rewarded - rewarded) / (now - then)

    def _expected(self, run: IssuanceRun, total: int, now: float) -> Eta | None:
        """The expected end. It is worked out once in a second, or less often where that takes long."""
        if self.is_stopping:
            return None
        if now >= self._eta_at:
            self._eta = run.eta(total=max(total, run.total))
            took = asyncio.get_running_loop().time() - now
            self._eta_at = now + max(_ETA_EVERY, _MOST_SHARE * took)
        return self._eta


def _unknown(_: IssuanceRun) -> None:
    return None


def notice(status: LimiterStatus | None) -> tuple[str, str]:
    """Why the requests of a run wait, in short and in a sentence; "" if they don't, or not for long."""
    if status is None:
        return "", ""
    if _is_away(status):
        return _OUTAGE, f"no answer from Thanx for {status.no_answer_for:.0f} s, still trying; Ctrl-C stops"
    is_bulk = status.bulk_held_for > status.held_for
    held, reason = (status.bulk_held_for, status.bulk_reason) if is_bulk else (status.held_for, status.reason)
    if held <= _LEAST_WAIT or not reason:
        return "", ""
    return reason, f"waiting until {clock(wall_time(held))} for {reason}"


def _is_away(status: LimiterStatus | None) -> bool:
    return status is not None and status.no_answer_for is not None and status.no_answer_for > _LEAST_WAIT

"""One batch of a run and its fate."""

from __future__ import annotations

import asyncio
from typing import Protocol

from thanx_async._batches import BatchOutcome, Positions, outcome_of
from thanx_async.batching._chunker import Batch
from thanx_async.batching._report import BatchRange, GuestRow
from thanx_async.http import Delivery
from thanx_async.instrumentation import BatchFate
from thanx_async.instrumentation import BatchRecord as BatchEvent
from thanx_async.jobs import JobHandle


class Entry:
    """One batch of a run, and its fate.

    Attributes:
        values, body: what it holds; the bytes only where they come from a ledger.
        held: in doubt, and not to be sent again by itself.
        recorded: the outcome is in the ledger.
        remembered: the recorded outcome, where the job may have been revoked since.
        since: when its oldest guest came in, on the loop's clock.
    """

    __slots__ = (
        "body",
        "delivery",
        "handle",
        "held",
        "issued",
        "key",
        "number",
        "positions",
        "recorded",
        "remembered",
        "rows",
        "run_id",
        "settled",
        "since",
        "state",
        "values",
    )

    def __init__(self, batch: Batch, key: str, run_id: str, since: float | None = None) -> None:
        self.since = asyncio.get_running_loop().time() if since is None else since
        self.run_id = run_id
        self.number = batch.number
        self.positions: Positions = batch.positions
        self.values: list[str] | None = batch.values
        self.body: bytes | None = None
        self.key = key
        self.delivery = Delivery()
        self.handle: JobHandle | None = None
        self.held = False
        self.settled = False
        self.recorded = False
        self.remembered: BatchOutcome | None = None
        self.state = ""
        self.issued = 0
        self.rows: list[GuestRow] = []

    @property
    def is_decided(self) -> bool:
        """Whether there is nothing to send."""
        return self.settled or self.held or self.handle is not None

    @property
    def possible_rewards(self) -> int:
        """How many of its guests may have a reward, as far as is known."""
        if self.settled:
            return self.issued
        return len(self.positions) if self.handle or self.delivery.in_doubt else 0

    @property
    def fate(self) -> BatchFate:
        """What has become of it, once its delivery is over."""
        if self.handle is not None:
            return BatchFate.ACCEPTED
        if self.settled:
            return BatchFate.REFUSED
        return BatchFate.IN_DOUBT if self.delivery.in_doubt else BatchFate.UNSENT

    def event(self, fate: BatchFate, error: BaseException | None = None) -> BatchEvent:
        """The record of its sending, or of its fate, for a hook."""
        return BatchEvent(
            run_id=self.run_id,
            number=self.number,
            idempotency_key=self.key,
            count=len(self.positions),
            fate=fate,
            seconds=asyncio.get_running_loop().time() - self.since,
            job_id=self.handle.id if self.handle else None,
            error=None if error is None else type(error).__name__,
        )

    @property
    def is_unclear(self) -> bool:
        """Whether its job has ended without saying who got a reward."""
        self.look()
        return not self.settled and bool(self.handle and self.handle.job and self.handle.job.is_finished)

    @property
    def least_failed(self) -> int | None:
        """How many of its guests have certainly got no reward, also where it is not known who; None as long
        as its job goes on or tells no numbers."""
        if self.settled:
            return len(self.rows)
        job = self.handle.job if self.handle else None
        if job is None or not job.is_finished or not job.is_counted:
            return None
        return max(0, len(self.positions) - (job.summary or job).success_count)

    def range(self) -> BatchRange:
        job_id = self.handle.id if self.handle else None
        return BatchRange(self.positions.first, self.positions.last, len(self.positions), self.key, job_id)

    def refuse(self, reason: str) -> None:
        """Thanx refused the whole batch: each of its guests has failed."""
        self.settle(
            BatchOutcome("refused", 0, tuple((index, reason) for index in range(len(self.positions))))
        )

    def look(self) -> None:
        """Take over the outcome once the job is finished and its numbers name every guest."""
        job = self.handle.job if self.handle else None
        if job is None or not job.is_finished:
            return
        if self.settled and (job.state != "revoked" or self.state == "revoked"):
            return  # all that may become of it is that its rewards are taken back
        failures = outcome_of(job, len(self.positions))
        if failures is not None:
            if self.settled:  # who has failed before had no reward that could be revoked
                failures = sorted({**dict(failures), **dict(self.outcome().failures)}.items())
            self.settle(BatchOutcome(job.state, len(self.positions) - len(failures), tuple(failures)))

    def settle(self, outcome: BatchOutcome) -> None:
        """The batch has ended."""
        job_id = self.handle.id if self.handle else None
        values = self.values
        self.rows = [
            GuestRow(self.positions[index], values[index] if values else None, reason, job_id)
            for index, reason in outcome.failures
        ]
        self.state = outcome.state
        self.issued = outcome.issued
        self.values = None
        self.settled = True
        self.recorded = False

    def outcome(self) -> BatchOutcome:
        """What `settle` was given, to be written down."""
        failures = tuple((self.positions.index(row.position), row.reason) for row in self.rows)
        return BatchOutcome(self.state, self.issued, failures)


class Sender(Protocol):
    """What sends batches."""

    @property
    def concurrency(self) -> int: ...

    async def deliver(self, entry: Entry) -> None: ...


def is_unsent(entry: Entry) -> bool:
    return entry.handle is None and not entry.settled and not entry.delivery.in_doubt


def is_in_doubt(entry: Entry) -> bool:
    if entry.handle is None:
        return not entry.settled and entry.delivery.in_doubt
    return entry.is_unclear


def is_unfinished(entry: Entry) -> bool:
    return entry.handle is not None and not entry.settled and not is_in_doubt(entry)

"""One batch of a run and its fate."""

from __future__ import annotations

from thanx_async._chunking import Batch, Positions
from thanx_async._ledger_records import Outcome
from thanx_async._report import BatchRange, GuestRow, outcome_of
from thanx_async._transport import Delivery
from thanx_async.jobs import JobHandle


class Entry:
    """One batch of a run, and its fate.

    Attributes:
        values, body: what it holds; the bytes only where they come from a ledger.
        held: in doubt, and not to be sent again by itself.
        recorded: the outcome is in the ledger.
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
        "rows",
        "run_id",
        "settled",
        "state",
        "values",
    )

    def __init__(self, batch: Batch, key: str, run_id: str) -> None:
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
    def is_unclear(self) -> bool:
        """Whether its job has ended without saying who got a reward."""
        return not self.settled and bool(self.handle and self.handle.job and self.handle.job.is_finished)

    def range(self) -> BatchRange:
        job_id = self.handle.id if self.handle else None
        return BatchRange(self.positions.first, self.positions.last, len(self.positions), self.key, job_id)

    def refuse(self, reason: str) -> None:
        """Thanx refused the whole batch: each of its guests has failed."""
        self.settle(Outcome("refused", 0, tuple((index, reason) for index in range(len(self.positions)))))

    def look(self) -> None:
        """Take over the outcome once the job is finished and its numbers name every guest."""
        job = self.handle.job if self.handle else None
        if job is None or not job.is_finished or (self.settled and self.state == job.state):
            return
        failures = outcome_of(job, len(self.positions))
        if failures is not None:
            self.settle(Outcome(job.state, len(self.positions) - len(failures), tuple(failures)))

    def settle(self, outcome: Outcome) -> None:
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

    def outcome(self) -> Outcome:
        """What `settle` was given, to be written down."""
        places = {position: index for index, position in enumerate(self.positions)} if self.rows else {}
        failures = tuple((places[row.position], row.reason) for row in self.rows)
        return Outcome(self.state, self.issued, failures)


def is_unsent(entry: Entry) -> bool:
    return entry.handle is None and not entry.settled and not entry.delivery.in_doubt


def is_in_doubt(entry: Entry) -> bool:
    if entry.handle is None:
        return not entry.settled and entry.delivery.in_doubt
    return entry.is_unclear


def is_unfinished(entry: Entry) -> bool:
    return entry.handle is not None and not entry.settled and not is_in_doubt(entry)

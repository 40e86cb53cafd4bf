"""One batch of a run, and its fate: told by verbs, changed from nowhere else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from thanx_async._batches import BatchOutcome, batch_key, outcome_of
from thanx_async._core.errors import BadRequestError
from thanx_async.batching._chunker import Chunk
from thanx_async.batching._report import BatchRange, GuestRow
from thanx_async.http import Delivery
from thanx_async.instrumentation import BatchEvent, BatchFate
from thanx_async.jobs import JobHandle

if TYPE_CHECKING:
    from thanx_async.ledger import BatchRecord


class Batch:
    """One batch of a run, and its fate.

    Args:
        chunk: its number, its places in the input, and its identifiers.
        since: when its oldest guest came in, on the loop's clock; now by default.
        on_send: called as an attempt to send it goes out.

    Attributes:
        delivery: how far its sending has come.
        handle: on its job, once Thanx has accepted it.
        held: in doubt, and not to be sent again by itself.
        settled: the outcome is known: ``state``, how many were ``issued``, and a row for each who was not.
        recorded: the outcome is in the ledger.
        remembered: the recorded outcome, where the job may have been revoked since.
        refused: the 400 that its last sending ended in.
    """

    __slots__ = (
        "_body",
        "_values",
        "delivery",
        "handle",
        "held",
        "issued",
        "key",
        "number",
        "positions",
        "recorded",
        "refused",
        "remembered",
        "rows",
        "run_id",
        "settled",
        "since",
        "state",
    )

    def __init__(
        self,
        chunk: Chunk,
        run_id: str,
        *,
        since: float | None = None,
        on_send: Callable[[], None] | None = None,
    ) -> None:
        self.since = asyncio.get_running_loop().time() if since is None else since
        self.run_id = run_id
        self.number = chunk.number
        self.positions = chunk.positions
        self.key = batch_key(run_id, chunk.number)
        self.delivery = Delivery(on_send)
        self.handle: JobHandle | None = None
        self.refused: BadRequestError | None = None
        self.held = False
        self.settled = False
        self.recorded = False
        self.remembered: BatchOutcome | None = None
        self.state = ""
        self.issued = 0
        self.rows: list[GuestRow] = []
        self._values: list[str] | None = chunk.values
        self._body: bytes | None = None

    @property
    def job_id(self) -> str | None:
        """The id of its job, once Thanx has accepted it."""
        return self.handle.id if self.handle else None

    @property
    def is_decided(self) -> bool:
        """Whether there is nothing to send."""
        return self.settled or self.held or self.handle is not None

    @property
    def is_unsent(self) -> bool:
        """Whether Thanx has certainly not accepted it."""
        return self.handle is None and not self.settled and not self.delivery.in_doubt

    @property
    def is_in_doubt(self) -> bool:
        """Whether it was sent and not answered, or its job ended without saying who got a reward."""
        if self.handle is None:
            return not self.settled and self.delivery.in_doubt
        return self.is_unclear

    @property
    def is_unclear(self) -> bool:
        """Whether its job has ended without saying who got a reward."""
        self.look()
        return not self.settled and bool(self.handle and self.handle.job and self.handle.job.is_finished)

    @property
    def is_unfinished(self) -> bool:
        """Whether its job still runs, as far as is known."""
        return self.handle is not None and not self.settled and not self.is_unclear

    @property
    def possible_rewards(self) -> int:
        """How many of its guests may have a reward, as far as is known."""
        if self.settled:
            return self.issued
        return len(self.positions) if self.handle or self.delivery.in_doubt else 0

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
            job_id=self.job_id,
            error=None if error is None else type(error).__name__,
        )

    def range(self) -> BatchRange:
        """Where it stands in the input, with its key and job."""
        positions = self.positions
        return BatchRange(positions.first, positions.last, len(positions), self.key, self.job_id)

    def outcome(self) -> BatchOutcome:
        """What `settle` was given, to be written down."""
        failures = tuple((self.positions.index(row.position), row.reason) for row in self.rows)
        return BatchOutcome(self.state, self.issued, failures)

    def body(self, encode: Callable[[list[str]], bytes]) -> bytes:
        """The bytes to send: those that a ledger has kept, or the identifiers encoded."""
        return self._body or encode(self._values or [])

    def hold(self) -> None:
        """It is not to be sent again by itself."""
        self.held = True

    def replay(self, body: bytes) -> None:
        """It is to be sent again with these bytes."""
        self._body = body

    def adopt(self, record: BatchRecord, handle: JobHandle | None, *, held: bool, keep_values: bool) -> None:
        """Take over the fate that is recorded."""
        in_doubt = record.outcome is None and handle is None
        self.key = record.key
        self.held = held
        if not keep_values and (held or not in_doubt):
            self._values = None
        self.handle = handle
        self.delivery.recall(in_doubt=in_doubt)
        if record.outcome is not None:
            self.settle(record.outcome)
            self.recorded = True

    def contradict(self, record: BatchRecord) -> None:
        """The ledger has other guests under its number: they are in doubt, and nothing is sent."""
        self.key = record.key
        self.held = True
        self.delivery.doubt()

    def remember(self, outcome: BatchOutcome) -> None:
        """This is how it ended, unless its job was revoked since."""
        self.remembered = outcome

    def going_out(self, *, keep_values: bool) -> None:
        """The bytes are with the transport; they are kept here no longer."""
        self._body = None
        if not keep_values:
            self._values = None

    def accepted(self, handle: JobHandle) -> None:
        """Thanx has accepted it as this job."""
        self.handle = handle

    def stop(self) -> None:
        """Allow no further attempt to send it."""
        self.delivery.stop()

    def doubt(self) -> None:
        """Others may send it, so that it is not certain any more that nothing was issued."""
        self.delivery.doubt()

    def refuse(self, error: BadRequestError) -> None:
        """Thanx refused the whole batch: each of its guests has failed, unless an attempt before that may
        have been accepted."""
        self.refused = error.with_traceback(None)
        if not error.in_doubt:
            reason = str(error)
            failures = tuple((index, reason) for index in range(len(self.positions)))
            self.settle(BatchOutcome("refused", 0, failures))

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

    def lost(self) -> bool:
        """Thanx knows its job no more; returns whether the outcome that is remembered stands in for it."""
        if self.remembered is not None:
            self.settle(self.remembered)
        return self.remembered is not None

    def settle(self, outcome: BatchOutcome) -> None:
        """The batch has ended."""
        values, job_id = self._values, self.job_id
        self.rows = [
            GuestRow(self.positions[index], values[index] if values else None, reason, job_id)
            for index, reason in outcome.failures
        ]
        self.state = outcome.state
        self.issued = outcome.issued
        self.settled = True
        self.recorded = False
        self._values = None

    def written(self, outcome: BatchOutcome) -> None:
        """This outcome is in the ledger; another one may have followed meanwhile."""
        self.recorded = self.state == outcome.state

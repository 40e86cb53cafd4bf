"""One batch of a run and its fate: unsent, in doubt, accepted or settled. Only its own methods change it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import repeat
from typing import TYPE_CHECKING

from thanx_async._batches import BatchOutcome, Positions, batch_key, values_of
from thanx_async._core.errors import BadRequestError, ThanxError
from thanx_async.batching._chunker import Chunk
from thanx_async.batching._report import BatchRange, GuestRow
from thanx_async.batching._rows import FailedRows
from thanx_async.batching._settling import outcome_after
from thanx_async.batching._tally import Share, Tally
from thanx_async.http import Delivery, wire
from thanx_async.instrumentation import BatchFate
from thanx_async.jobs import JobHandle, when_finished

if TYPE_CHECKING:
    from thanx_async.ledger import BatchRecord

ONE_GUEST = frozenset({"USER_EMAIL_INVALID", "USER_PHONE_INVALID"})


class Batch:
    """One batch of a run, and its fate.

    Args:
        chunk: the batch's number, its positions in the input, and its identifiers.
        run_id: the run that the batch belongs to.
        since: when the batch's oldest guest arrived, in seconds on the loop's clock; now by default.
        on_send: called at the start of each attempt to send the batch.
        callers: what a hook has noted of the callers of `AsyncBatcher.add`.

    Attributes:
        delivery: the state of the batch's Issue Rewards request.
        handle: the handle on the batch's job, once Thanx has accepted the batch.
        held: the batch is not sent again automatically.
        rows: the guests without a reward, once the outcome is known.
        recorded: the ledger holds the outcome.
        fallback: the recorded outcome of a job that may have been revoked since. It stands if Thanx no longer
            knows the job.
        refused: the 400 that ended the last attempt.
        may_split: if Thanx refuses the batch because of one guest's value, its halves can be sent instead.
    """

    __slots__ = (
        "_body",
        "_outcome",
        "_sending",
        "_share",
        "_tally",
        "_values",
        "callers",
        "delivery",
        "fallback",
        "handle",
        "held",
        "key",
        "may_split",
        "number",
        "positions",
        "recorded",
        "refused",
        "rows",
        "run_id",
        "since",
    )

    def __init__(
        self,
        chunk: Chunk,
        run_id: str,
        *,
        since: float | None = None,
        on_send: Callable[[], None] | None = None,
        callers: tuple[object, ...] = (),
    ) -> None:
        self.since: float = asyncio.get_running_loop().time() if since is None else since
        self.run_id: str = run_id
        self.number: int = chunk.number
        self.positions: Positions = chunk.positions
        self.key: str = batch_key(run_id, chunk.number)
        self.delivery: Delivery = Delivery(on_send)
        self.handle: JobHandle | None = None
        self.refused: BadRequestError | None = None
        self.may_split: bool = False
        self.callers: tuple[object, ...] = callers
        self.held: bool = False
        self.recorded: bool = False
        self.fallback: BatchOutcome | None = None
        self.rows: Sequence[GuestRow] = ()
        self._outcome: BatchOutcome | None = None
        self._values: list[str] | None = chunk.values
        self._body: bytes | None = None
        self._tally: Tally | None = None
        self._share = Share()
        self._sending = False

    @property
    def settled(self) -> bool:
        """Whether the outcome is known."""
        return self._outcome is not None

    @property
    def state(self) -> str:
        """The final state of the job, ``refused`` or ``split``; empty until the outcome is known."""
        return self._outcome.state if self._outcome else ""

    @property
    def issued(self) -> int:
        """The number of rewards, 0 until the outcome is known."""
        return self._outcome.issued if self._outcome else 0

    @property
    def job_id(self) -> str | None:
        """The id of the batch's job, once Thanx has accepted the batch."""
        return self.handle.id if self.handle else None

    @property
    def is_decided(self) -> bool:
        """Whether nothing remains to be sent."""
        return self.settled or self.held or self.handle is not None

    @property
    def is_unsent(self) -> bool:
        """Whether Thanx has certainly not accepted the batch."""
        return self.handle is None and not self.settled and not self.delivery.in_doubt

    @property
    def is_in_doubt(self) -> bool:
        """Whether the batch was sent without an answer, or its job ended without telling who got a reward."""
        if self.handle is None:
            return not self.settled and self.delivery.in_doubt
        return self.is_unclear

    @property
    def is_unclear(self) -> bool:
        """Whether the batch's job ended without telling who got a reward."""
        self.settle_from_job()
        return not self.settled and bool(self.handle and self.handle.job and self.handle.job.is_finished)

    @property
    def is_unfinished(self) -> bool:
        """Whether the batch's job is still running, as far as is known."""
        return self.handle is not None and not self.settled and not self.is_unclear

    @property
    def possible_rewards(self) -> int:
        """How many of the batch's guests may have a reward, as far as is known."""
        if self._outcome and not self._sending:
            return self._outcome.issued
        return len(self.positions) if self._sending or self.handle or self.delivery.in_doubt else 0

    @property
    def minimum_failed(self) -> int | None:
        """How many of the batch's guests certainly have no reward, even if the job does not name them.

        None while the job is running, or if it reports no counts.
        """
        if self._outcome:
            return len(self._outcome.failures)
        job = self.handle.job if self.handle else None
        if job is None or not job.is_finished or not job.is_counted:
            return None
        return max(0, len(self.positions) - (job.summary or job).success_count)

    def join(self, tally: Tally) -> None:
        """Count in the sums of the run from now on."""
        self._tally, self._share = tally, Share()
        self.count()
        self._count_job()

    def count(self) -> None:
        """Bring the batch's share of the run's sums up to date."""
        if self._tally is not None:
            share = self._current_share()
            self._tally.replace(self, self._share, share)
            self._share = share

    def _count_job(self) -> None:
        """Count the batch again once its job has ended, whoever polled the job."""
        if self._tally is not None and self.handle is not None and not self.settled:
            when_finished(self.handle, partial(self._tally.ended.add, self), self.count)

    def _current_share(self) -> Share:
        # The first of these settles a batch whose job has ended.
        in_doubt, unfinished = self.is_in_doubt, self.is_unfinished
        size, failed = len(self.positions), self.minimum_failed
        return Share(
            issued=self.issued,
            failed=len(self.rows),
            unsent=size * self.is_unsent,
            in_doubt=size * in_doubt,
            unfinished=size * unfinished,
            possible=self.possible_rewards,
            ended=0 if failed is None else size,
            ended_failed=failed or 0,
        )

    @property
    def blames_one_guest(self) -> bool:
        """Whether Thanx refused the batch because of one guest's value, and certainly issued nothing."""
        error = self.refused
        return error is not None and not error.in_doubt and error.code in ONE_GUEST

    @property
    def is_split(self) -> bool:
        """Whether Thanx refused the batch because of one guest's value, so that its halves are sent."""
        return self.may_split and self.blames_one_guest

    @property
    def fate(self) -> BatchFate:
        """The batch's fate for a hook, once its delivery is over."""
        if self.handle is not None:
            return BatchFate.ACCEPTED
        if self.settled:
            return BatchFate.SPLIT if self.is_split else BatchFate.REFUSED
        return BatchFate.IN_DOUBT if self.delivery.in_doubt else BatchFate.UNSENT

    def range(self) -> BatchRange:
        """The batch's place in the input, with its key and job id."""
        positions = self.positions
        return BatchRange(positions.first, positions.last, len(positions), self.key, self.job_id)

    def values_at(self) -> Iterator[tuple[int, str | None]]:
        """Each position, with its identifier unless that is forgotten."""
        return zip(self.positions, self._values or repeat(None), strict=False)

    def values_in(self, body: bytes) -> list[str]:
        """The identifiers that are about to be sent; from the body, if it was recorded."""
        return self._values or values_of(body)

    def outcome(self) -> BatchOutcome:
        """The settled outcome, as the ledger records it."""
        assert self._outcome is not None  # noqa: S101 - only settled batches are asked
        return self._outcome

    def begin_sending(self) -> None:
        """A delivery begins. Until it ends, all guests of the batch count as possible rewards."""
        self._sending = True
        if self._tally is not None:
            self._tally.sending.add(self)
        self.count()

    def end_sending(self) -> None:
        """The delivery is over."""
        self._sending = False
        if self._tally is not None:
            self._tally.sending.discard(self)
        self.count()

    def body(self, encode: Callable[[list[str]], bytes]) -> bytes:
        """The bytes to send: the recorded ones if there are any, otherwise the encoded identifiers."""
        return self._body or encode(self._values or [])

    def hold(self) -> None:
        """Don't send the batch again automatically."""
        self.held = True

    def replay(self, body: bytes) -> None:
        """Send the batch again with these recorded bytes."""
        self._body = wire.Body(body)

    def adopt(self, record: BatchRecord, handle: JobHandle | None, *, held: bool, keep_values: bool) -> None:
        """Take over the recorded fate.

        Args:
            record: the batch as the ledger holds it.
            handle: the handle on the recorded job, if there is one.
            held: don't send the batch again automatically.
            keep_values: keep the identifiers even if nothing remains to be sent.
        """
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
        self.count()
        self._count_job()

    def mark_conflict(self, record: BatchRecord) -> None:
        """Hold the batch as in doubt: the ledger has other guests under its number."""
        self.key = record.key
        self.held = True
        self.doubt()

    def set_fallback(self, outcome: BatchOutcome) -> None:
        """Keep the recorded outcome in case Thanx no longer knows the job."""
        self.fallback = outcome

    def forget_payload(self, *, keep_values: bool) -> None:
        """Drop the recorded bytes, and the identifiers unless they are kept: the transport has the body."""
        self._body = None
        if not keep_values:
            self._values = None

    def accepted(self, handle: JobHandle) -> None:
        """Thanx has accepted the batch as this job."""
        self.handle = handle
        self.count()
        self._count_job()

    def let_split(self, allowed: bool) -> None:
        """If Thanx refuses the batch because of one guest's value, its halves are sent, or not any more."""
        self.may_split = allowed

    def limit_age(self, recorded_at: float, replay_within: float) -> None:
        """Don't send the batch again once its record is older than ``replay_within`` seconds."""
        self.delivery.limit_age(recorded_at, replay_within)

    def stop(self) -> None:
        """Allow no further attempt to send the batch."""
        self.delivery.stop()

    def doubt(self) -> None:
        """Mark the batch as in doubt: another process may send it."""
        self.delivery.doubt()
        self.count()

    def mark_if_in_doubt(self, error: ThanxError) -> None:
        """Mark the error as in doubt, with the idempotency key, if the batch is in doubt."""
        if self.delivery.in_doubt:
            error.in_doubt, error.idempotency_key = True, self.key

    def refuse(self, error: BadRequestError) -> None:
        """Take in a 400 for the batch: every guest has failed, unless an earlier attempt is in doubt."""
        self.refused = error.with_traceback(None)
        if not error.in_doubt:
            reason, state = str(error), "split" if self.is_split else "refused"
            self.settle(BatchOutcome(state, 0, ((index, reason) for index in range(len(self.positions)))))

    def settle_from_job(self) -> None:
        """Take over the outcome once the job has finished and its counts account for every guest."""
        job = self.handle.job if self.handle else None
        if job is not None and job.is_finished:
            if outcome := outcome_after(self._outcome, job, len(self.positions)):
                self.settle(outcome)
        elif self._outcome and self._outcome.by_event and self._outcome is not self.fallback:
            self._outcome, self.rows, self.recorded = None, (), False  # the event is not believed any more
            self.count()

    def job_lost(self) -> bool:
        """Thanx no longer knows the job. Returns whether the fallback outcome settled the batch."""
        if self.fallback is not None:
            self.settle(self.fallback)
        return self.fallback is not None

    def settle(self, outcome: BatchOutcome) -> None:
        """Set the final outcome, with a row for each guest without a reward."""
        self.rows = FailedRows(self.positions, outcome.failures, self._values, self.job_id)
        self._outcome = outcome
        self.recorded = False
        if not outcome.by_event:  # a poll may tell of other guests
            self._values = None
        self.count()

    def mark_recorded(self, outcome: BatchOutcome) -> None:
        """Note that the ledger holds this outcome; a later one may have replaced it in the meantime."""
        self.recorded = self._outcome is outcome

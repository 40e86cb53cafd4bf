"""Who got what: the account of a run, whose parts sum to the total at every moment."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from thanx_async._chunking import Batch, Chunker, Dropped, Positions
from thanx_async._report import BatchRange, GuestRow, IssuanceReport, outcome_of
from thanx_async._transport import Delivery
from thanx_async.errors import NotFoundError, ThanxError
from thanx_async.jobs import JobHandle


class Entry:
    """One batch of a run, and its fate."""

    __slots__ = ("delivery", "handle", "issued", "key", "positions", "refusal", "rows", "settled", "values")

    def __init__(self, batch: Batch, key: str) -> None:
        self.positions: Positions = batch.positions
        self.values: list[str] | None = batch.values
        self.key = key
        self.delivery = Delivery()
        self.handle: JobHandle | None = None
        self.refusal: str | None = None
        self.settled = False
        self.issued = 0
        self.rows: list[GuestRow] = []

    def range(self) -> BatchRange:
        job_id = self.handle.id if self.handle else None
        return BatchRange(self.positions.first, self.positions.last, len(self.positions), self.key, job_id)

    def refuse(self, reason: str) -> None:
        """Thanx refused the whole batch: each of its guests has failed."""
        self.refusal = reason
        self._settle(0, [(index, reason) for index in range(len(self.positions))])

    def look(self) -> None:
        """Take over the outcome once the job is finished and its numbers name every guest."""
        job = self.handle.job if self.handle else None
        if self.settled or job is None or not job.is_finished:
            return
        outcome = outcome_of(job, len(self.positions))
        if outcome is not None:
            self._settle(len(self.positions) - len(outcome), outcome)

    def _settle(self, issued: int, failures: list[tuple[int, str]]) -> None:
        job_id = self.handle.id if self.handle else None
        values = self.values
        self.rows = [
            GuestRow(self.positions[index], values[index] if values else None, reason, job_id)
            for index, reason in failures
        ]
        self.issued = issued
        self.values = None
        self.settled = True


class IssuanceRun:
    """A run and its account, true at every moment.

    Attributes:
        run_id: names the run; the idempotency keys follow from it.
        error: what stopped the run, None otherwise.
    """

    def __init__(self, run_id: str, chunker: Chunker) -> None:
        self.run_id = run_id
        self.error: BaseException | None = None
        self._chunker = chunker
        self._entries: list[Entry] = []
        self._notify: Callable[[IssuanceRun], None] | None = None

    def __repr__(self) -> str:
        counts = ", ".join(f"{count:,} {fate}" for fate, count in self.report().counts.items() if count)
        return f"<IssuanceRun {self.run_id}: {counts or 'nothing read'}>"

    def __reduce__(self) -> tuple[object, ...]:
        state = self.run_id, self._entries, self._chunker
        return _restored, state

    @property
    def total(self) -> int:
        """Items read from the input so far."""
        return self._chunker.read

    @property
    def handles(self) -> list[JobHandle]:
        """The accepted batches' jobs, in input order."""
        return [entry.handle for entry in self._entries if entry.handle]

    @property
    def rejected(self) -> list[GuestRow]:
        """Items that are no identifiers."""
        return _rows(self._chunker.rejected)

    @property
    def duplicates(self) -> list[GuestRow]:
        """Items that name a guest who came before."""
        return _rows(self._chunker.duplicates)

    @property
    def unsent(self) -> list[BatchRange]:
        """Batches that Thanx has certainly not accepted; a new run may send them."""
        ranges = [entry.range() for entry in self._entries if _is_unsent(entry)]
        pending = self._chunker.pending
        return [*ranges, BatchRange(pending.first, pending.last, len(pending))] if pending else ranges

    @property
    def in_doubt(self) -> list[BatchRange]:
        """Batches that were sent and not answered, and jobs that ended without saying who got a reward."""
        return [entry.range() for entry in self._entries if _is_in_doubt(entry)]

    def report(self) -> IssuanceReport:
        """What is known now, without a request."""
        for entry in self._entries:
            entry.look()
        return IssuanceReport(
            run_id=self.run_id,
            total=self.total,
            issued=sum(entry.issued for entry in self._entries),
            failed=[row for entry in self._entries for row in entry.rows],
            rejected=self.rejected,
            duplicates=self.duplicates,
            unsent=self.unsent,
            in_doubt=self.in_doubt,
            unfinished=[entry.range() for entry in self._entries if _is_unfinished(entry)],
        )

    async def wait(self, *, timeout: float | None = None) -> IssuanceReport:
        """Wait for every job and report.

        Args:
            timeout: seconds, after which jobs that still run are reported as ``unfinished``.

        Raises:
            ThanxError: a poll failed, after its retries; `report` says what is known, and `wait` can be
                called again.
        """
        try:
            async with asyncio.timeout(timeout) as scope:
                await self._follow_all()
        except TimeoutError:
            if not scope.expired():
                raise
        return self.report()

    async def _follow_all(self) -> None:
        """Follow every job to its end; one that Thanx does not know any more does not keep the others."""
        lost: list[NotFoundError] = []
        try:
            async with asyncio.TaskGroup() as group:
                for entry in self._entries:
                    if entry.handle and not entry.settled:
                        group.create_task(self._follow(entry, entry.handle, lost))
        except ExceptionGroup as errors:
            thanx, others = errors.split(ThanxError)
            if thanx is None or others is not None:
                raise
            raise _first(thanx) from None
        if lost:
            raise lost[0]

    async def _follow(self, entry: Entry, handle: JobHandle, lost: list[NotFoundError]) -> None:
        try:
            async for _ in handle.updates():
                entry.look()
                self.changed()
        except NotFoundError as error:
            lost.append(error)

    @property
    def chunker(self) -> Chunker:
        return self._chunker

    @property
    def entries(self) -> list[Entry]:
        return self._entries

    def on_change(self, notify: Callable[[IssuanceRun], None] | None) -> None:
        self._notify = notify

    def changed(self) -> None:
        if self._notify:
            self._notify(self)


def _restored(run_id: str, entries: list[Entry], chunker: Chunker) -> IssuanceRun:
    run = IssuanceRun(run_id, chunker)
    run.entries.extend(entries)
    return run


def _first(group: BaseExceptionGroup[ThanxError]) -> ThanxError:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


def _rows(dropped: list[Dropped]) -> list[GuestRow]:
    return [GuestRow(row.position, row.value, row.reason) for row in dropped]


def _is_unsent(entry: Entry) -> bool:
    return entry.handle is None and entry.refusal is None and not entry.delivery.in_doubt


def _is_in_doubt(entry: Entry) -> bool:
    if entry.handle is None:
        return entry.refusal is None and entry.delivery.in_doubt
    return not entry.settled and bool(entry.handle.job and entry.handle.job.is_finished)


def _is_unfinished(entry: Entry) -> bool:
    return entry.handle is not None and not entry.settled and not _is_in_doubt(entry)

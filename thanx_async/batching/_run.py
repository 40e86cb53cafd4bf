"""`IssuanceRun`, the public face of a run, and `BatchError`, raised when a run stops early."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

from thanx_async._core import checks
from thanx_async._core.errors import ThanxError
from thanx_async._core.escaping import printable
from thanx_async.batching._account import RunAccount
from thanx_async.batching._eta import Eta
from thanx_async.batching._report import (
    BatchRange,
    GuestRow,
    IssuanceReport,
    RevocationReport,
    VerificationReport,
)
from thanx_async.jobs import JobHandle


class BatchError(ThanxError):
    """A run stopped before its end; the cause is chained as ``__cause__``.

    ``run`` knows the fate of every identifier read so far. ``run.in_doubt`` holds the batches in doubt, with
    their idempotency keys.
    """

    __module__ = "thanx_async.errors"

    def __init__(self, message: str, *, run: IssuanceRun) -> None:
        super().__init__(message)
        self.run = run
        self.in_doubt: bool = bool(run.in_doubt)


class IssuanceRun:
    """A run of `AsyncBatcher`. Its properties are accurate at every moment."""

    def __init__(self, account: RunAccount) -> None:
        self._account = account

    def __repr__(self) -> str:
        counts = ", ".join(f"{count:,} {fate}" for fate, count in self._account.counts().items() if count)
        return f"<IssuanceRun {printable(self.run_id)}: {counts or 'nothing read'}>"

    @property
    def run_id(self) -> str:
        """The id of the run, from which its idempotency keys are derived."""
        return self._account.run_id

    @property
    def error(self) -> BaseException | None:
        """The error that stopped the run, None otherwise."""
        return self._account.error

    @property
    def total(self) -> int:
        """The number of items read from the input so far."""
        return self._account.chunker.read

    @property
    def handles(self) -> list[JobHandle]:
        """The job handles of the accepted batches, in input order."""
        return [batch.handle for batch in self._account.batches if batch.handle]

    @property
    def rejected(self) -> Sequence[GuestRow]:
        """Input items that are not valid identifiers."""
        return self._account.chunker.rejected

    @property
    def duplicates(self) -> Sequence[GuestRow]:
        """Input items that repeat an earlier guest."""
        return self._account.chunker.duplicates

    @property
    def unsent(self) -> list[BatchRange]:
        """Batches that Thanx has certainly not accepted; a new run may send them."""
        return self._account.unsent()

    def unsent_guests(self) -> Iterator[GuestRow]:
        """The guests of the `unsent` batches, in input order."""
        return self._account.unsent_guests()

    @property
    def in_doubt(self) -> list[BatchRange]:
        """Batches that were sent without an answer, and jobs that ended without telling who got a reward.

        Also the part read so far of a recorded batch, if reading stopped within that batch.
        """
        return self._account.in_doubt()

    def report(self) -> IssuanceReport:
        """The report as of now, without a request."""
        return self._account.report()

    def eta(self, *, total: int | None = None) -> Eta | None:
        """When the run should end, by the rate limits, what is spent of them, and the speed of jobs.

        Until the speed of jobs is known, they are taken to end at once. Costs no request.

        Args:
            total: the number of items in the input; None if only what has been read counts.

        Returns:
            The expected times; None if nothing is left to send and every outcome is known, and for a run
            that was unpickled.
        """
        if total is not None:
            checks.number("total", total, 0, whole=True)
        return self._account.eta(total or 0)

    async def wait(self, *, timeout: float | None = None) -> IssuanceReport:
        """Wait for every job to finish, and report.

        Args:
            timeout: in seconds; None for as long as it takes. Jobs that are still running after it are
                reported as ``unfinished``.

        Raises:
            ThanxError: Thanx refused a poll, such as with a 401 or a 404; outages are waited out. `report`
                tells what is known, and `wait` can be called again.
        """
        checks.timeout(timeout)
        try:
            async with asyncio.timeout(timeout) as scope:
                await self._account.follow_all()
        except TimeoutError:
            if not scope.expired():
                raise
        return self.report()

    async def verify(self, sample: float = 1.0) -> VerificationReport:
        """Poll jobs whose outcome an event told (`Events.OUTCOME`), after waiting for jobs that still run.

        Each takes one request of the rate limits, and waits behind issuing. What a poll tells replaces what
        the event told. After a disagreement, events are no longer believed, and all other jobs of the client
        whose outcome an event told are polled as well.

        Args:
            sample: the share of these jobs to poll, chosen at random.

        Raises:
            ThanxError: a poll of a job that still runs was refused, or the ledger failed.
        """
        checks.number("sample", sample, 0, 1)
        return await self._account.verify(float(sample))

    async def revoke(self) -> RevocationReport:
        """Revoke the rewards of every job in the run, after waiting for jobs that are still running.

        With a ledger, the run is marked as revoked, and nothing more of it is issued. A batch in doubt has
        no job to revoke: call `AsyncBatcher.resume` first.

        Raises:
            LedgerError: the run is being issued right now, or the mark could not be written. Nothing was
                revoked.
        """
        return await self._account.revoke()

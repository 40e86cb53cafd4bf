"""A run as its users see it, and the error of one that stopped."""

from __future__ import annotations

import asyncio

from thanx_async._core import checks
from thanx_async._core.errors import ThanxError
from thanx_async.batching._account import RunAccount
from thanx_async.batching._report import BatchRange, GuestRow, IssuanceReport, RevocationReport
from thanx_async.jobs import JobHandle


class BatchError(ThanxError):
    """A run stopped before its end. ``run`` knows the fate of every identifier read; the cause is chained.

    The keys of what is in doubt are in ``run.in_doubt``.
    """

    __module__ = "thanx_async.errors"

    def __init__(self, message: str, *, run: IssuanceRun) -> None:
        super().__init__(message)
        self.run = run
        self.in_doubt = bool(run.in_doubt)


class IssuanceRun:
    """A run and its account, accurate at every moment; made by `AsyncBatcher`."""

    def __init__(self, account: RunAccount) -> None:
        self._account = account

    def __repr__(self) -> str:
        counts = ", ".join(f"{count:,} {fate}" for fate, count in self.report().counts.items() if count)
        return f"<IssuanceRun {self.run_id}: {counts or 'nothing read'}>"

    @property
    def run_id(self) -> str:
        """Names the run; the idempotency keys follow from it."""
        return self._account.run_id

    @property
    def error(self) -> BaseException | None:
        """What stopped the run, None otherwise."""
        return self._account.error

    @property
    def total(self) -> int:
        """Items read from the input so far."""
        return self._account.chunker.read

    @property
    def handles(self) -> list[JobHandle]:
        """The accepted batches' jobs, in input order."""
        return [batch.handle for batch in self._account.batches if batch.handle]

    @property
    def rejected(self) -> list[GuestRow]:
        """Items that are no identifiers."""
        return self._account.rejected()

    @property
    def duplicates(self) -> list[GuestRow]:
        """Items that name a guest who came before."""
        return self._account.duplicates()

    @property
    def unsent(self) -> list[BatchRange]:
        """Batches that Thanx has certainly not accepted; a new run may send them."""
        return self._account.unsent()

    @property
    def in_doubt(self) -> list[BatchRange]:
        """Batches that were sent and not answered, and jobs that ended without saying who got a reward.

        Where the reading of a recorded run's input stopped within a recorded batch, that part of it as well.
        """
        return self._account.in_doubt()

    def report(self) -> IssuanceReport:
        """What is known now, without a request."""
        return self._account.report()

    async def wait(self, *, timeout: float | None = None) -> IssuanceReport:
        """Wait for every job and report.

        Args:
            timeout: seconds, after which jobs that still run are reported as ``unfinished``.

        Raises:
            ThanxError: a poll failed, after its retries; `report` says what is known, and `wait` can be
                called again.
        """
        checks.timeout(timeout)
        try:
            async with asyncio.timeout(timeout) as scope:
                await self._account.follow_all()
        except TimeoutError:
            if not scope.expired():
                raise
        return self.report()

    async def revoke(self) -> RevocationReport:
        """Take back every job of the run, waiting for those that still run.

        With a ledger the run is marked as revoked, and is never issued further. What is in doubt has no
        job that could be taken back: `AsyncBatcher.resume` it first.

        Raises:
            LedgerError: the run is being issued right now, or the mark could not be written; nothing was
                taken back.
        """
        return await self._account.revoke()

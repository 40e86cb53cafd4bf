"""The `Ledger` protocol, which each backend of the ledger implements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from thanx_async._batches import BatchOutcome, EndedJob, Trust
from thanx_async.ledger._records import BatchRecord, RunRecord


class Ledger(Protocol):
    """Records runs and their batches. `SQLiteLedger` implements it; a custom ledger needs the same methods.

    When a method returns, its effect is durable. A method that fails raises a `LedgerError`, which is
    ``in_doubt`` if a batch may have been recorded anyway. A method runs to its end even if its caller is
    cancelled; the cancellation is raised afterwards, and a cancelled `claim` is released.

    The state of a batch only moves forward: in doubt, accepted, finished.
    """

    @property
    def replay_within(self) -> float:
        """The age, in seconds, after which a batch in doubt is not sent again automatically."""

    async def claim(self, run: RunRecord) -> RunRecord:
        """Claim a run exclusively, until `release`. Returns the run as recorded.

        An unknown run is recorded. A run without batches takes over new settings. A revoked run stays
        revoked.

        Raises:
            LedgerError: the run has batches and its settings differ (`RunRecord.differences`), or another
                process has claimed it. A ledger may let a claim expire (a lease).
        """

    async def release(self, run_id: str) -> None:
        """Let other processes claim the run."""

    async def run(self, run_id: str) -> RunRecord | None:
        """The run with this id, or None."""

    async def runs(self) -> list[RunRecord]:
        """All runs, oldest first."""

    async def save_run(self, run: RunRecord) -> None:
        """Record ``total``, ``batches`` and ``revoked_at`` of a run."""

    async def batches(self, run_id: str) -> list[BatchRecord]:
        """The batches of a run, ordered by number."""

    async def in_doubt(self) -> list[BatchRecord]:
        """All batches in doubt, of all runs, oldest first."""

    async def body(self, run_id: str, number: int) -> bytes:
        """The request body of a batch in doubt."""

    async def record(self, batch: BatchRecord, body: bytes) -> BatchRecord:
        """Record a batch of a claimed run, and its request body, before it is sent.

        Returns the batch that is recorded under this number, which may be an earlier one. After an error that
        is not in doubt, the batch is certainly not recorded.
        """

    async def record_all(self, batches: Sequence[tuple[BatchRecord, bytes]]) -> list[BatchRecord]:
        """Like `record`, for several batches with their request bodies, in one transaction.

        After an error that is not in doubt, or a crash before the effect is durable, none of them is
        recorded.
        """

    async def accept(self, run_id: str, number: int, job_id: str) -> None:
        """Record that Thanx accepted a batch in doubt as a job, and delete the body."""

    async def finish(self, run_id: str, outcomes: Mapping[int, BatchOutcome]) -> None:
        """Record the outcomes of batches, by number, and delete the bodies of batches still in doubt."""

    async def withdraw(self, run_id: str, number: int) -> None:
        """Delete a batch in doubt that was certainly not issued, and its body.

        Raises:
            LedgerError: another process has taken over the run, and may be sending the batch.
        """


@runtime_checkable
class TrustLedger(Protocol):
    """A ledger that also remembers, for all processes, how far webhook events can be trusted.

    With any other ledger, each process must see a few events confirmed again (`Events.OUTCOME`).
    """

    async def exchange_trust(self, base_url: str, client_id: str, news: Trust) -> Trust:
        """Add what was learned about the events of a credential, and return what is known of it."""


@runtime_checkable
class RelayLedger(Protocol):
    """A ledger through which a process that hears an event tells whichever process waits for the job."""

    async def relay(self, job: EndedJob) -> None:
        """Take in what an event told of a job. What was taken in first stands."""

    async def relayed(self, run_id: str) -> list[EndedJob]:
        """What events told of the accepted batches of a run, each once."""
